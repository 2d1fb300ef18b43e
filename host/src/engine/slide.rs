//! Sliding windows over panes: one merge for a pane, one for a window, and nothing is ever subtracted, so that sums do not
//! drift and sketches slide too. Knows no time and no metrics.
//!
//! van Herk, A fast algorithm for local minimum and maximum filters (1992); Gil and Werman (1993): cut the panes into blocks
//! as long as the window; a window is the end of one block and the beginning of the next.

/// `out[i]` merges `panes[i * stride .. i * stride + width]`. There are as many panes as `points` windows need.
pub fn slide<T: Clone>(
    panes: &[T],
    width: usize,
    stride: usize,
    points: usize,
    merge: impl Fn(&mut T, &T),
    mut emit: impl FnMut(usize, &T),
) {
    assert!(width > 0 && stride > 0 && (points == 0 || (points - 1) * stride + width <= panes.len()));
    if width == 1 {
        (0..points).for_each(|point| emit(point, &panes[point * stride]));
        return;
    }
    // `ends[i]`: from the pane `block + i` to the end of its block.
    let mut ends: Vec<T> = Vec::with_capacity(width);
    let mut block = None;
    // From the next block's first pane to before `until`.
    let mut beginning: Option<T> = None;
    let mut until = 0;
    for point in 0..points {
        let start = point * stride;
        let first = start - start % width;
        if block != Some(first) {
            block = Some(first);
            (beginning, until) = (None, first + width);
            ends.clear();
            for pane in panes[first..until].iter().rev() {
                let mut end = pane.clone();
                if let Some(behind) = ends.last() {
                    merge(&mut end, behind);
                }
                ends.push(end);
            }
            ends.reverse();
        }
        for pane in &panes[until..(start + width).max(until)] {
            match &mut beginning {
                Some(beginning) => merge(beginning, pane),
                None => beginning = Some(pane.clone()),
            }
        }
        until = until.max(start + width);
        match &beginning {
            None => emit(point, &ends[start - first]),
            Some(beginning) => {
                let mut whole = ends[start - first].clone();
                merge(&mut whole, beginning);
                emit(point, &whole);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_is_the_merge_of_its_panes() {
        let panes: Vec<String> = (0..50u8).map(|n| ((b'!' + n) as char).to_string()).collect();
        for width in 1..12 {
            for stride in 1..=width {
                let points = (panes.len() - width) / stride + 1;
                let mut seen = 0;
                slide(
                    &panes,
                    width,
                    stride,
                    points,
                    |a, b| a.push_str(b),
                    |point, text| {
                        assert_eq!(*text, panes[point * stride..point * stride + width].concat(), "{width} {stride}");
                        seen += 1;
                    },
                );
                assert_eq!(seen, points);
            }
        }
    }

    #[test]
    fn sums_do_not_drift() {
        // A running sum that subtracts would keep the rounding error of the large value for ever.
        let mut panes = vec![0.1f64; 200];
        panes[20] = 1e18;
        slide(
            &panes,
            10,
            1,
            190,
            |a, b| *a += b,
            |point, sum| {
                if point > 20 {
                    assert!((sum - 1.0).abs() < 1e-12, "{point}: {sum}");
                }
            },
        );
    }
}
