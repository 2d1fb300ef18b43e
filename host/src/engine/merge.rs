//! Several partials of one plan as one, its groups in the order in which their first events stood in the input: limits are
//! decided first come, first kept, and so come out the same however the input was cut and shared out.

use std::collections::HashMap;
use std::sync::Arc;

use super::delta::{DimensionValue, GroupPartial, MetricPartial, Partial, States};

/// All of `partials` have the same plan.
pub fn in_order(mut partials: Vec<Partial>) -> Option<Partial> {
    if partials.len() < 2 {
        return partials.pop();
    }
    let plan = partials[0].plan.clone();
    let (values, places) = merge_values(&partials);
    let mut groups = Vec::new();
    // For each group and partial, where each row went.
    let mut moved: Vec<Vec<Vec<u32>>> = Vec::new();
    for (id, dimensions) in plan.groups.iter().enumerate() {
        let parts: Vec<&GroupPartial> = partials.iter().map(|partial| &partial.groups[id]).collect();
        let (merged, rows) = merge_group(&parts, dimensions, &places);
        groups.push(merged);
        moved.push(rows);
    }
    let mut metrics = Vec::new();
    for (metric, definition) in plan.metrics.iter().enumerate() {
        let parts: Vec<(usize, MetricPartial)> = partials
            .iter_mut()
            .enumerate()
            .filter_map(|(part, partial)| {
                let at = partial.metrics.iter().position(|it| it.metric == metric)?;
                Some((part, partial.metrics.swap_remove(at)))
            })
            .collect();
        if !parts.is_empty() {
            metrics.push(merge_metric(metric, parts, &moved[definition.group]));
        }
    }
    Some(Partial { plan, values, groups, metrics })
}

/// One list of values a dimension; for each partial and dimension, the place of each of its codes.
fn merge_values(partials: &[Partial]) -> (Vec<Vec<DimensionValue>>, Vec<Vec<Vec<u32>>>) {
    let dimensions = partials[0].values.len();
    let mut merged: Vec<Vec<DimensionValue>> = vec![Vec::new(); dimensions];
    let mut known: Vec<HashMap<Arc<str>, u32>> = vec![HashMap::new(); dimensions];
    let mut places = Vec::new();
    for partial in partials {
        let of_partial = partial.values.iter().enumerate().map(|(dimension, values)| {
            let place = |value: &DimensionValue| {
                let list = &mut merged[dimension];
                let place = *known[dimension].entry(value.text.clone()).or_insert_with(|| {
                    list.push(DimensionValue { text: value.text.clone(), events: 0 });
                    list.len() as u32 - 1
                });
                list[place as usize].events += value.events;
                place
            };
            values.iter().map(place).collect::<Vec<u32>>()
        });
        places.push(of_partial.collect());
    }
    (merged, places)
}

fn merge_group(
    parts: &[&GroupPartial],
    dimensions: &[usize],
    places: &[Vec<Vec<u32>>],
) -> (GroupPartial, Vec<Vec<u32>>) {
    let rows = |(part, group): (usize, &&GroupPartial)| {
        group.order.iter().enumerate().map(move |(row, order)| (*order, part as u32, row as u32)).collect::<Vec<_>>()
    };
    let mut order: Vec<(u64, u32, u32)> = parts.iter().enumerate().flat_map(rows).collect();
    // A few ascending runs: what a stable sort merges.
    order.sort();
    let mut merged = GroupPartial::default();
    let mut moved: Vec<Vec<u32>> = parts.iter().map(|group| vec![0; group.minutes.len()]).collect();
    for (place, (order, part, row)) in order.into_iter().enumerate() {
        let (part, row) = (part as usize, row as usize);
        moved[part][row] = place as u32;
        merged.order.push(order);
        merged.minutes.push(parts[part].minutes[row]);
        let codes = &parts[part].codes[row * dimensions.len()..(row + 1) * dimensions.len()];
        merged
            .codes
            .extend(codes.iter().zip(dimensions).map(|(code, dimension)| places[part][*dimension][*code as usize]));
    }
    (merged, moved)
}

fn merge_metric(metric: usize, mut parts: Vec<(usize, MetricPartial)>, moved: &[Vec<u32>]) -> MetricPartial {
    // (row of the merged group, index in `parts`, index there)
    let mut cells: Vec<(u32, u32, u32)> = Vec::new();
    for (at, (part, changed)) in parts.iter().enumerate() {
        let rows = changed.rows.iter().enumerate();
        cells.extend(rows.map(|(cell, row)| (moved[*part][*row as usize], at as u32, cell as u32)));
    }
    cells.sort();
    let slots = (0..parts[0].1.slots.len()).map(|slot| {
        let columns: Vec<States> = parts
            .iter_mut()
            .map(|(_, changed)| std::mem::replace(&mut changed.slots[slot], States::Count(Vec::new())))
            .collect();
        pick(columns, &cells)
    });
    MetricPartial { metric, slots: slots.collect(), rows: cells.iter().map(|(row, _, _)| *row).collect() }
}

/// The states of the cells, in their order. All columns are of one kind.
fn pick(columns: Vec<States>, cells: &[(u32, u32, u32)]) -> States {
    macro_rules! pick {
        ($kind:path) => {{
            let mut columns: Vec<_> = columns
                .into_iter()
                .map(|column| if let $kind(values) = column { values } else { Vec::new() })
                .collect();
            $kind(
                cells
                    .iter()
                    .map(|(_, part, cell)| std::mem::take(&mut columns[*part as usize][*cell as usize]))
                    .collect(),
            )
        }};
    }
    match columns.first() {
        Some(States::Sum(_)) => pick!(States::Sum),
        Some(States::Min(_)) => pick!(States::Min),
        Some(States::Max(_)) => pick!(States::Max),
        Some(States::Uniq(_)) => pick!(States::Uniq),
        Some(States::Count(_)) | None => pick!(States::Count),
    }
}
