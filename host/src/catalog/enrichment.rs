//! Enrichments: checked, loaded and put in an order in which each comes after those it reads from.

use std::collections::HashMap;

use super::diagnostic::{Problems, Span};
use super::file::{EnrichTable, File};
use super::read::{Entry, Given, List, Path, check_name, is_name};
use super::spec::named;
use crate::engine::extension::{EnricherRequest, Fault, LoadedEnricher, PluginError, Plugins};

pub const ENRICHMENTS_MAX: usize = 64;
pub const ENRICHMENT_FIELDS_MAX: usize = 32;

/// A valid `[enrich.NAME]`.
pub struct Enrich {
    pub name: String,
    pub plugin: String,
    pub input: Vec<Path>,
    pub output: Vec<Path>,
    pub replace: bool,
    pub loaded: LoadedEnricher,
}

/// The paths that enrichments give, readable or not: what an expression's names are looked up in.
pub fn outputs(file: &File) -> Vec<Path> {
    let tables = named(&file.enrich).iter().filter_map(|entry| entry.value.get());
    let lists = tables.filter_map(|at| at.value.output.get());
    lists.flat_map(|at| at.value.0.iter().map(|output| output.value.clone())).collect()
}

/// In the order of work. Incomplete when there were problems.
pub fn load(file: &File, plugins: &dyn Plugins, problems: &mut Problems) -> Vec<Enrich> {
    let entries = named(&file.enrich);
    if let Some(entry) = entries.get(ENRICHMENTS_MAX) {
        problems
            .add(&entry.name.span, format!("{} enrichments", entries.len()))
            .expected(format!("at most {ENRICHMENTS_MAX}"));
        return Vec::new();
    }
    let before = problems.len();
    refuse_shared_outputs(entries, problems);
    let order = order(entries, problems);
    let sound_order = problems.len() == before;
    let mut loaded: Vec<Option<Enrich>> = entries.iter().map(|entry| enrich(entry, plugins, problems)).collect();
    if !sound_order {
        return Vec::new();
    }
    order.into_iter().filter_map(|at| loaded[at].take()).collect()
}

fn enrich(entry: &Entry<EnrichTable>, plugins: &dyn Plugins, problems: &mut Problems) -> Option<Enrich> {
    let before = problems.len();
    let name = &entry.name;
    check_name("an enrichment", name, problems);
    let table = &entry.value.get()?.value;
    for (key, absent) in
        [("plugin", table.plugin.is_absent()), ("input", table.input.is_absent()), ("output", table.output.is_absent())]
    {
        if absent {
            problems.add(&name.span, format!("`enrich.{}` has no `{key}`", name.value)).expected(match key {
                "plugin" => "`plugin = \"NAME\"` for `NAME.wasm` in the plugin folder",
                "input" => "`input = [\"field\", …]`: what the plugin is given",
                _ => "`output = [\"field\", …]`: what the plugin answers",
            });
        }
    }
    fields("input", &table.input, problems);
    fields("output", &table.output, problems);
    if let Some(files) = table.files.get() {
        for file in &files.value.0 {
            check_file(&file.value, &file.span, problems);
        }
    }
    let plugin = table.plugin.get()?;
    check_plugin(&plugin.value, &plugin.span, problems);
    let (input, output) = (paths(&table.input)?, paths(&table.output)?);
    if problems.len() > before || matches!(table.files, Given::Broken) || matches!(table.config, Given::Broken) {
        return None;
    }
    let request = EnricherRequest {
        plugin: plugin.value.clone(),
        input: input.iter().map(Path::to_string).collect(),
        output: output.iter().map(Path::to_string).collect(),
        files: table
            .files
            .get()
            .map(|at| at.value.0.iter().map(|file| file.value.clone()).collect())
            .unwrap_or_default(),
        config: table.config.get().map_or_else(|| "{}".to_owned(), |at| at.value.0.clone()),
    };
    match plugins.enricher(&request) {
        Ok(loaded) => Some(Enrich {
            name: name.value.clone(),
            plugin: plugin.value.clone(),
            input,
            output,
            replace: table.r#override.value_or(false),
            loaded,
        }),
        Err(error) => {
            let span = match error.fault {
                Fault::Plugin => Some(plugin.span.clone()),
                Fault::Input => table.input.get().map(|at| at.span.clone()),
                Fault::Output => table.output.get().map(|at| at.span.clone()),
                Fault::Files => table.files.get().map(|at| at.span.clone()),
                Fault::Config => table.config.get().map(|at| at.span.clone()),
            };
            plugin_problem(&span.unwrap_or_else(|| name.span.clone()), error, problems);
            None
        }
    }
}

pub fn plugin_problem(span: &Span, error: PluginError, problems: &mut Problems) {
    let expected = match error.fault {
        Fault::Plugin => "a plugin in the plugin folder that can be loaded",
        Fault::Input => "fields that the plugin takes",
        Fault::Output => "fields that the plugin gives",
        Fault::Files => "files below the plugin folder",
        Fault::Config => "settings that the plugin accepts",
    };
    let problem = problems.add(span, error.message).expected(expected);
    if let Some(help) = error.help {
        problem.help(help);
    }
}

/// A plugin is named like its file, without a folder and without `.wasm`.
pub fn check_plugin(plugin: &str, span: &Span, problems: &mut Problems) -> bool {
    if is_name(plugin) {
        return true;
    }
    let problem = problems
        .add(span, format!("`{plugin}` is not the name of a plugin"))
        .expected("lower-case letters, digits and `_`: `user_agent` for `user_agent.wasm` in the plugin folder");
    let bare = plugin.rsplit('/').next().unwrap_or(plugin).trim_end_matches(".wasm");
    if is_name(bare) {
        problem.help(format!("write `{bare}`"));
    }
    false
}

fn check_file(file: &str, span: &Span, problems: &mut Problems) {
    let sound = !file.is_empty()
        && !file.starts_with('/')
        && !file.contains(['\\', '\0'])
        && file.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if !sound {
        problems
            .add(span, format!("`{file}` is not a file below the plugin folder"))
            .expected("a relative path, as `country.mmdb`");
    }
}

fn fields(key: &str, given: &Given<List<Path>>, problems: &mut Problems) {
    let Some(list) = given.get() else { return };
    if list.value.0.is_empty() || list.value.0.len() > ENRICHMENT_FIELDS_MAX {
        problems
            .add(&list.span, format!("`{key}` of {} fields", list.value.0.len()))
            .expected(format!("1 to {ENRICHMENT_FIELDS_MAX}"));
    }
    for (at, field) in list.value.0.iter().enumerate() {
        if list.value.0[..at].iter().any(|earlier| earlier.value == field.value) {
            problems.add(&field.span, format!("the field `{}` stands here twice", field.value)).expected("each once");
        }
    }
}

fn paths(given: &Given<List<Path>>) -> Option<Vec<Path>> {
    given.get().map(|at| at.value.0.iter().map(|path| path.value.clone()).collect())
}

fn refuse_shared_outputs(entries: &[Entry<EnrichTable>], problems: &mut Problems) {
    let mut owners: HashMap<&[String], &str> = HashMap::new();
    for entry in entries {
        let output = entry.value.get().and_then(|at| at.value.output.get());
        for field in output.map(|at| at.value.0.as_slice()).unwrap_or_default() {
            let owner = owners.entry(&field.value.0).or_insert(&entry.name.value);
            if *owner != entry.name.value {
                problems
                    .add(&field.span, format!("`{}` is also an output of `enrich.{owner}`", field.value))
                    .expected("a field that no other enrichment gives");
            }
        }
    }
}

/// Each after those whose outputs it reads.
fn order(entries: &[Entry<EnrichTable>], problems: &mut Problems) -> Vec<usize> {
    let list = |given: &Given<List<Path>>| paths(given).unwrap_or_default();
    let tables: Vec<(Vec<Path>, Vec<Path>)> = entries
        .iter()
        .map(|entry| {
            entry.value.get().map_or_else(Default::default, |at| (list(&at.value.input), list(&at.value.output)))
        })
        .collect();
    let reads = |reader: usize, giver: usize| tables[reader].0.iter().any(|input| tables[giver].1.contains(input));
    let (mut order, mut rest): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..entries.len()).collect());
    while let Some(at) = rest.iter().position(|reader| !rest.iter().any(|giver| reads(*reader, *giver))) {
        order.push(rest.remove(at));
    }
    if let Some(first) = rest.first() {
        // Each that is left reads from another that is left: following any of them ends in a circle.
        let mut way = vec![*first];
        let circle = loop {
            let last = way[way.len() - 1];
            let Some(next) = rest.iter().copied().find(|giver| reads(last, *giver)) else { break way };
            if let Some(from) = way.iter().position(|id| *id == next) {
                break way[from..].iter().copied().chain([next]).collect();
            }
            way.push(next);
        };
        refuse_circle(entries, &circle, problems);
    }
    order
}

fn refuse_circle(entries: &[Entry<EnrichTable>], circle: &[usize], problems: &mut Problems) {
    let first = &entries[circle[0]];
    let span = first.value.get().and_then(|at| at.value.input.get()).map_or(&first.name.span, |at| &at.span);
    let names: Vec<_> = circle.iter().map(|id| format!("`enrich.{}`", entries[*id].name.value)).collect();
    let message = match &names[..] {
        [_, _] => "an enrichment that reads its own output".to_owned(),
        _ => format!("enrichments that read from each other: {}", names.join(" → ")),
    };
    problems
        .add(span, message)
        .expected("fields of the event, or outputs of enrichments that do not depend on this one");
}
