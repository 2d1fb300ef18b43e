//! Several partials of one plan as one. What came first in the input stays so, since each group says where its first event
//! stood: limits are decided first come, first kept, and so come out the same however the input was cut and shared out.

use std::sync::Arc;

use hashbrown::{HashMap, HashTable};
use xxhash_rust::xxh3::xxh3_64;

use super::delta::{DimensionValue, GroupPartial, MetricPartial, Partial, States};

/// All of `partials` have the same plan. A group or cell that several have is there as often.
pub fn joined(mut partials: Vec<Partial>) -> Option<Partial> {
    if partials.len() < 2 {
        return partials.pop();
    }
    let plan = partials[0].plan.clone();
    let (values, places) = join_values(&partials);
    let join = |(id, dimensions): (usize, &Vec<usize>)| {
        let parts: Vec<&GroupPartial> = partials.iter().map(|partial| &partial.groups[id]).collect();
        join_group(&parts, dimensions, &places)
    };
    let groups = plan.groups.iter().enumerate().map(join).collect();
    let mut metrics: Vec<MetricPartial> = Vec::new();
    let mut first_rows = vec![0; plan.groups.len()];
    for partial in partials {
        for mut changed in partial.metrics {
            let first_row = first_rows[plan.metrics[changed.metric].group];
            changed.rows.iter_mut().for_each(|row| *row += first_row);
            match metrics.iter_mut().find(|known| known.metric == changed.metric) {
                Some(known) => {
                    known.rows.append(&mut changed.rows);
                    known.slots.iter_mut().zip(changed.slots).for_each(|(slot, more)| append(slot, more));
                }
                None => metrics.push(changed),
            }
        }
        first_rows.iter_mut().zip(&partial.groups).for_each(|(row, group)| *row += group.minutes.len() as u32);
    }
    Some(Partial { plan, values, groups, metrics })
}

/// One list of values a dimension; for each partial and dimension, the place of each of its codes.
fn join_values(partials: &[Partial]) -> (Vec<Vec<DimensionValue>>, Vec<Vec<Vec<u32>>>) {
    let dimensions = partials[0].values.len();
    let mut joined: Vec<Vec<DimensionValue>> = vec![Vec::new(); dimensions];
    let mut known: Vec<HashMap<Arc<str>, u32>> = vec![HashMap::new(); dimensions];
    let mut places = Vec::new();
    for partial in partials {
        let of_partial = partial.values.iter().enumerate().map(|(dimension, values)| {
            let place = |value: &DimensionValue| {
                let list = &mut joined[dimension];
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
    (joined, places)
}

/// `places`: for each part and dimension, the place of each code.
fn join_group(parts: &[&GroupPartial], dimensions: &[usize], places: &[Vec<Vec<u32>>]) -> GroupPartial {
    let mut joined = GroupPartial::default();
    let width = dimensions.len();
    let hash_of = |codes: &[u32]| xxh3_64(bytemuck::cast_slice(codes));
    let mut known: HashTable<u32> = HashTable::new();
    for (part, places) in parts.iter().zip(places) {
        let mut codes = vec![0; width];
        let mut number = |of_part: &[u32]| {
            let place = |(code, dimension): (&u32, &usize)| places[*dimension][*code as usize];
            codes.iter_mut().zip(of_part.iter().zip(dimensions).map(place)).for_each(|(code, place)| *code = place);
            let (hash, all) = (hash_of(&codes), &mut joined.codes);
            if let Some(&number) = known.find(hash, |&number| all[number as usize * width..][..width] == codes) {
                return number;
            }
            let number = known.len() as u32;
            all.extend_from_slice(&codes);
            known.insert_unique(hash, number, |&number| hash_of(&all[number as usize * width..][..width]));
            number
        };
        // Without dimensions there is one combination, which has no codes.
        let numbers: Vec<u32> = match width {
            0 => vec![0],
            _ => part.codes.chunks_exact(width).map(&mut number).collect(),
        };
        joined.order.extend_from_slice(&part.order);
        joined.minutes.extend_from_slice(&part.minutes);
        joined.combinations.extend(part.combinations.iter().map(|combination| numbers[*combination as usize]));
    }
    joined
}

/// Both are of one kind.
fn append(states: &mut States, more: States) {
    match (states, more) {
        (States::Count(states), States::Count(mut more)) => states.append(&mut more),
        (States::Sum(states), States::Sum(mut more))
        | (States::Min(states), States::Min(mut more))
        | (States::Max(states), States::Max(mut more)) => states.append(&mut more),
        (States::Uniq(states), States::Uniq(mut more)) => states.append(&mut more),
        (States::Summary(states), States::Summary(mut more)) => states.append(&mut more),
        _ => unreachable!("a slot of a plan has one kind"),
    }
}
