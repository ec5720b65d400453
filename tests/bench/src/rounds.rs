//! Taking turns: every subject once a round, so that what disturbs the machine disturbs all alike.
//!
//! In:  subjects and how to measure one of them once.
//! Out: a row of samples for each subject, one set of rows for each quantity.
//! Not here: what the samples say (`table`).

use crate::{options::Options, table::Row};

/// Measures every subject `options.rounds` times. Each round begins with another subject: nobody
/// is always first, and nobody is last in one round and first in the next.
pub(crate) fn take_turns<const N: usize>(
    options: &Options,
    subjects: &[&str],
    mut measure: impl FnMut(&str) -> anyhow::Result<[f64; N]>,
) -> anyhow::Result<[Vec<Row>; N]> {
    let mut rows: [Vec<Row>; N] = std::array::from_fn(|_| {
        subjects
            .iter()
            .map(|subject| Row::new(*subject))
            .collect::<Vec<_>>()
    });
    for round in 0..options.rounds {
        let mut order: Vec<(usize, &str)> = subjects.iter().copied().enumerate().collect();
        let first = round.checked_rem(order.len()).unwrap_or(0);
        order.rotate_left(first);
        for (nth, subject) in order {
            let values = measure(subject)?;
            for (rows, value) in rows.iter_mut().zip(values) {
                if let Some(row) = rows.get_mut(nth) {
                    row.samples.push(value);
                }
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everyone_is_measured_once_a_round_and_nobody_is_always_first() {
        let options = Options {
            rounds: 3,
            slice: Duration::ZERO,
        };
        let mut order = Vec::new();
        let [first, second] = take_turns(&options, &["a", "b"], |subject| {
            order.push(subject.to_owned());
            Ok([order.len() as f64, 0.5])
        })
        .unwrap();
        assert_eq!(order.concat(), "abbaab");
        assert_eq!(first[0].samples, [1.0, 4.0, 5.0]);
        assert_eq!(first[1].samples, [2.0, 3.0, 6.0]);
        assert_eq!(second[0].samples, [0.5; 3]);
    }
}
