//! Funnels: the first steps of a window looked up among the later steps of all keys, up to a span after it.
//! Knows how panes lie on windows; what a funnel counts is `engine/summary/funnel`'s.

use std::sync::Arc;

use super::bind::{Funnel, Leaf};
use super::leaf::{Layout, LeafAnswer, LeafSeries, WINDOWS_MAX, too_many_points};
use crate::engine::plan::StateKind;
use crate::engine::slide::slide;
use crate::engine::summary::Summary;
use crate::engine::summary::funnel::{Depths, Later, Visits, json};
use crate::store::{ReadAnswer, ReadRequest, StateColumn, StateReader};
use crate::time::{MINUTE_MS, Minute};
use crate::web::ApiError;

/// Both reads are repeated so often at most to see one point in time.
const READS_MAX: usize = 3;
/// Panes whose later steps are looked up together: a table of them takes memory.
const BLOCK_PANES: usize = 60;

/// `first`: how to read the first steps, over the panes from `layout.skipped` on.
pub fn read(
    reader: &dyn StateReader,
    leaf: &Leaf,
    funnel: &Funnel,
    first: &ReadRequest,
    layout: &Layout,
) -> Result<LeafAnswer, ApiError> {
    let pane_minutes = first.resolution.minutes();
    let ahead = (funnel.span_ms as usize).div_ceil(pane_minutes as usize * MINUTE_MS as usize);
    let reach = |range: &std::ops::Range<Minute>| range.start..Minute(range.end.0 + ahead as u32 * pane_minutes);
    let later = ReadRequest {
        fingerprints: funnel.later.clone(),
        kinds: vec![StateKind::Funnel],
        margins: false,
        dimensions: 0,
        by: Vec::new(),
        filters: Vec::new(),
        resolution: first.resolution,
        ranges: first.ranges.iter().map(reach).collect(),
    };
    let (first, later) = read_both(reader, first, &later)?;
    if first.series.len().saturating_mul(layout.windows) > WINDOWS_MAX {
        return Err(too_many_points());
    }
    let later_panes = later.series.first().map_or(&[][..], |series| visits(&series.states));
    let mut found: Vec<Vec<Option<Arc<Depths>>>> = vec![vec![None; layout.panes]; first.series.len()];
    for from in (0..first.steps.len()).step_by(BLOCK_PANES.max(ahead)) {
        let to = (from + BLOCK_PANES.max(ahead)).min(first.steps.len());
        let block = Block { panes: &later_panes[from.min(later_panes.len())..], from, to, ahead };
        let table = block.table();
        for (series, found) in first.series.iter().zip(&mut found) {
            for (pane, first) in visits(&series.states).iter().enumerate().take(to).skip(from) {
                if let (Some(first), Some(place)) = (of(first), found.get_mut(layout.skipped + pane)) {
                    let depths = Depths::of(first, &table, block.theta(pane), funnel.span_ms, funnel.steps);
                    *place = Some(Arc::new(depths));
                }
            }
        }
    }
    let series = first.series.into_iter().zip(found);
    let series = series.map(|(series, depths)| windows(series.labels, &depths, leaf, funnel, layout));
    Ok(LeafAnswer { seq: first.seq.min(later.seq), series: series.collect() })
}

/// At one point in time where that can be had.
fn read_both(
    reader: &dyn StateReader,
    first: &ReadRequest,
    later: &ReadRequest,
) -> Result<(ReadAnswer, ReadAnswer), ApiError> {
    let read = |request| reader.read(request).map_err(|error| ApiError::unavailable(error.to_string(), 1));
    let mut both = (read(first)?, read(later)?);
    for _ in 1..READS_MAX {
        if both.0.seq == both.1.seq {
            break;
        }
        both = (read(first)?, read(later)?);
    }
    Ok(both)
}

fn visits(states: &[StateColumn]) -> &[Option<Arc<Summary>>] {
    match states.first() {
        Some(StateColumn::Summary(panes)) => panes,
        _ => &[],
    }
}

fn of(pane: &Option<Arc<Summary>>) -> Option<&Visits> {
    match pane.as_deref() {
        Some(Summary::Funnel(visits)) => Some(visits),
        _ => None,
    }
}

/// Panes of first steps that share a table of later ones.
struct Block<'p> {
    /// Later steps from the block's first pane on.
    panes: &'p [Option<Arc<Summary>>],
    from: usize,
    to: usize,
    ahead: usize,
}

impl Block<'_> {
    fn table(&self) -> Later {
        let mut later = Later::default();
        self.panes.iter().take(self.to - self.from + self.ahead).filter_map(of).for_each(|visits| later.add(visits));
        later.order();
        later
    }

    /// Keys below it are known in all panes that count for first steps of this one.
    fn theta(&self, pane: usize) -> u64 {
        let counted = self.panes.iter().skip(pane - self.from).take(self.ahead + 1);
        counted.filter_map(of).map(Visits::theta).min().unwrap_or(u64::MAX)
    }
}

fn windows(
    labels: Vec<Arc<str>>,
    panes: &[Option<Arc<Depths>>],
    leaf: &Leaf,
    funnel: &Funnel,
    layout: &Layout,
) -> LeafSeries {
    let mut out = LeafSeries::empty(labels, layout.windows, leaf.is_list());
    let merge = |into: &mut Option<Arc<Depths>>, from: &Option<Arc<Depths>>| match (into, from) {
        (_, None) => {}
        (Some(into), Some(from)) => Arc::make_mut(into).merge(from),
        (into, Some(from)) => *into = Some(from.clone()),
    };
    slide(panes, layout.width, layout.stride, layout.windows, merge, |at, depths| {
        if let Some(depths) = depths {
            out.present[at] = true;
            out.lists[at] = Some(json(&depths.counts(funnel.steps)).into());
        }
    });
    out
}
