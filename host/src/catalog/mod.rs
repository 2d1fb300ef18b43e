//! `metrics.toml` to `Definitions`: as typed (`file`), valid (`spec`, `expression`, `metrics`, `enrichment`, `rules`, `notify`),
//! compiled (`compile`). Knows no HTTP, no stores and no WebAssembly: plugins come through a trait.

pub mod definitions;
pub mod diagnostic;

mod read;

mod file;
mod literal;
mod spec;

mod expression;

mod enrichment;
mod metrics;
mod notify;
mod rules;

mod canonical;
mod compile;

mod difference;

pub use difference::difference;
pub use file::schema;

use std::collections::HashMap;

use definitions::Definitions;
use diagnostic::{Diagnostic, Problems};
use literal::Literal;

use crate::engine::extension::Plugins;
use crate::engine::plan::Plan;

pub const FILE_BYTES_MAX: usize = 1 << 20;

/// The text of a file as read from disk; a byte that is not UTF-8 is an error like any other.
pub fn decode(file_name: &str, bytes: Vec<u8>) -> Result<String, Vec<Diagnostic>> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let mut problems = Problems::default();
        problems.add(&(at..at + 1), "not UTF-8").expected("text in UTF-8");
        problems.into_diagnostics(file_name, &text)
    })
}

/// All of the file or none of it; all errors at once, in the order of the text.
pub fn load(file_name: &str, text: &str, plugins: &dyn Plugins) -> Result<Definitions, Vec<Diagnostic>> {
    let mut problems = Problems::default();
    match definitions(text, plugins, &mut problems) {
        Some(definitions) if problems.is_empty() => Ok(definitions),
        _ => Err(problems.into_diagnostics(file_name, text)),
    }
}

/// Every `backfill = true` of a sound file, where the host it is for cannot fill a metric, with the reason.
pub fn refuse_backfill(file_name: &str, text: &str, reason: &str) -> Vec<Diagnostic> {
    let mut problems = Problems::default();
    if let Some(file) = file::read(text, &mut problems) {
        let keys = spec::named(&file.metrics).iter().filter_map(|entry| entry.value.get());
        let given = keys.filter_map(|at| at.value.0.backfill.get()).filter(|at| at.value);
        given.for_each(|at| {
            problems
                .add(&at.span, format!("a metric cannot be filled backwards here: {reason}"))
                .expected("`false`, or no `backfill`");
        });
    }
    problems.into_diagnostics(file_name, text)
}

fn definitions(text: &str, plugins: &dyn Plugins, problems: &mut Problems) -> Option<Definitions> {
    if text.len() > FILE_BYTES_MAX {
        problems
            .add(&(0..0), format!("the file is {} bytes long", text.len()))
            .expected(format!("at most {FILE_BYTES_MAX}"));
        return None;
    }
    let file = file::read(text, problems)?;
    let spec = spec::check(&file, problems);
    let mut fields = expression::Fields::default();
    let shapes = metrics::shapes(text, &spec, &aliases(&file, &spec), &mut fields, problems);
    metrics::check_headline(&spec, &shapes, problems);
    let enrichments = enrichment::load(&file, plugins, problems);
    let rules = rules::load(&file, &spec, &shapes, plugins, problems);
    let notify = notify::check(&file, &spec, problems);
    if !problems.is_empty() {
        return None;
    }
    let shapes = shapes.into_iter().collect::<Option<Vec<_>>>()?;
    Some(compile::compile(compile::Parts { text, spec, shapes, fields, enrichments, rules, notify }))
}

/// A plan for looking at events as the definitions leave them after enrichment. `text`: definitions that were applied;
/// `condition`: as behind `where`, absent for all events. Diagnostics point into the condition.
pub fn look(text: &str, condition: Option<&str>, plugins: &dyn Plugins) -> Result<Plan, Vec<Diagnostic>> {
    let mut problems = Problems::default();
    let read = file::read(text, &mut problems).map(|file| {
        let spec = spec::check(&file, &mut problems);
        let enrichments = enrichment::load(&file, plugins, &mut problems);
        (aliases(&file, &spec), spec, enrichments)
    });
    let Some((aliases, spec, enrichments)) = read.filter(|_| problems.is_empty()) else {
        return Err(problems.into_diagnostics("the definitions", text));
    };
    let mut fields = expression::Fields::default();
    let condition = condition.map(|condition| {
        let key = spec.event.key.as_ref().map(|path| path.0.as_slice());
        let mut scope = expression::Scope { metrics: &spec.metric_ids, aliases: &aliases, fields: &mut fields, key };
        let read = expression::read_condition(&Literal::alone(condition), &mut scope, &mut problems);
        read.ok_or_else(|| std::mem::take(&mut problems).into_diagnostics("where", condition))
    });
    Ok(compile::look(&spec.event, fields, enrichments, condition.transpose()?))
}

/// Dimensions that read a field of another name. We cannot know which fields events have, so such a name means the
/// dimension's field, unless an enrichment gives a field of that name.
fn aliases(file: &file::File, spec: &spec::Spec) -> HashMap<String, Vec<String>> {
    let outputs = enrichment::outputs(file);
    let own = |name: &str| outputs.iter().any(|path| path.0 == [name]);
    let renamed = spec.dimensions.iter().filter(|d| d.path.0 != [d.name.as_str()] && !own(&d.name));
    renamed.map(|d| (d.name.clone(), d.path.0.clone())).collect()
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
