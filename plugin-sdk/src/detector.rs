//! The detector kind: the trait its author implements and the way from the host to it.

use std::cell::RefCell;
use std::time::Duration;

use crate::__private::About;
use crate::bindings::detector::exports::tidemark::plugin::detector as wit;
use crate::settings::Config;

/// One point of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Start of its step, Unix milliseconds.
    pub t: i64,
    /// The metric's value there.
    pub value: f64,
}

/// The points that a detector sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Length of a step in milliseconds.
    pub step_ms: u64,
    /// Oldest first; a step without a value is left out.
    pub past: Vec<Point>,
    /// The point to be judged, later than all of `past`.
    pub last: Point,
}

/// What a detector says about a point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// The value that was to be expected.
    pub expected: f64,
    /// The band outside which a point is an anomaly.
    pub lower: f64,
    /// See `lower`.
    pub upper: f64,
    /// How far the point lies from what was expected, signed, in the detector's own unit (standard deviations for most).
    pub score: f64,
    /// Whether the point is an anomaly.
    pub anomalous: bool,
}

/// Judges the last point of a series.
pub trait Detector: Sized + 'static {
    /// True: the verdict depends on windows seen before.
    const STATEFUL: bool = false;

    /// Sets the detector up. An error is shown to whoever wrote the definitions, and the definitions are refused.
    fn new(config: &Config) -> Result<Self, String>;

    /// How far back before the judged point the detector wants to see.
    fn history(&self) -> Duration;

    /// Judges `window.last`. `None`: too little is known to judge.
    fn judge(&mut self, window: &Window) -> Option<Verdict>;
}

/// The one instance that a sandbox holds.
#[doc(hidden)]
pub struct DetectorSlot<T> {
    instance: RefCell<Option<T>>,
}

impl<T: Detector> DetectorSlot<T> {
    /// Nothing configured yet.
    pub const fn empty() -> Self {
        DetectorSlot { instance: RefCell::new(None) }
    }

    /// What the plugin says about itself.
    pub fn describe(about: About) -> wit::Metadata {
        crate::host::log_panics();
        wit::Metadata {
            name: about.name.replace('-', "_"),
            version: about.version.to_owned(),
            description: about.description.to_owned(),
            stateful: T::STATEFUL,
        }
    }

    /// Makes the instance; how far back it wants to see, in milliseconds.
    pub fn configure(&self, config: String) -> Result<u64, String> {
        crate::host::log_panics();
        let instance = T::new(&Config::new(config))?;
        let history_ms = u64::try_from(instance.history().as_millis()).unwrap_or(u64::MAX);
        self.instance.replace(Some(instance));
        Ok(history_ms)
    }

    /// The host's window to the detector, its verdict to the host.
    pub fn judge(&self, window: wit::Window) -> Option<wit::Verdict> {
        let mut instance = self.instance.borrow_mut();
        let detector = instance.as_mut().expect("judge before configure");
        let points = window.times.into_iter().zip(window.values);
        let mut past: Vec<Point> = points.map(|(t, value)| Point { t, value }).collect();
        let last = past.pop()?;
        let verdict = detector.judge(&Window { step_ms: window.step_ms, past, last })?;
        let Verdict { expected, lower, upper, score, anomalous } = verdict;
        Some(wit::Verdict { expected, lower, upper, score, anomalous })
    }
}

/// Makes this crate a plugin of kind detector: `export_detector!(MyType);` where `MyType` implements [`Detector`].
#[macro_export]
macro_rules! export_detector {
    ($plugin:ty) => {
        #[allow(unsafe_code)] // in the generated exports
        const _: () = {
            use $crate::__private::detector_world::exports::tidemark::plugin::detector as wit;

            thread_local! {
                static SLOT: $crate::__private::DetectorSlot<$plugin> =
                    const { $crate::__private::DetectorSlot::empty() };
            }

            struct Component;

            impl wit::Guest for Component {
                fn describe() -> wit::Metadata {
                    $crate::__private::DetectorSlot::<$plugin>::describe($crate::__about!())
                }
                fn configure(config: String) -> Result<u64, String> {
                    SLOT.with(|slot| slot.configure(config))
                }
                fn judge(window: wit::Window) -> Option<wit::Verdict> {
                    SLOT.with(|slot| slot.judge(window))
                }
            }

    $crate::__private::detector_world::export!(Component with_types_in $crate::__private::detector_world);
        };
    };
}
