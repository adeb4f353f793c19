//! Pairs of numbers, and what can be said about them.
#![forbid(unsafe_code)]

/// A quantity, measured in pairs.
pub struct Comparison {
    /// Medians of both sides.
    pub medians: [f64; 2],
    /// The ratio of each pair, with the library by without it: least, median, greatest.
    pub ratio: [f64; 3],
    /// What follows.
    pub outcome: Outcome,
}

/// What can be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// In every pair the library's side had less.
    Less,
    /// In every pair it had more.
    More,
    /// Pairs differ from each other by more than the sides do.
    WithinSpread,
    /// There is only one pair, so nothing is known about the spread.
    OnePair,
}

impl Outcome {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Outcome::Less => "less",
            Outcome::More => "more",
            Outcome::WithinSpread => "no difference beyond the spread",
            Outcome::OnePair => "one pair: spread unknown",
        }
    }
}

/// Compares; each pair is (without, with).
pub fn compare(pairs: &[(f64, f64)]) -> Comparison {
    let ratio = |&(without, with): &(f64, f64)| if without == with { 1.0 } else { with / without };
    let ratios: Vec<f64> = pairs.iter().map(ratio).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let greatest = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let outcome = if pairs.len() < 2 {
        Outcome::OnePair
    } else if greatest < 1.0 {
        Outcome::Less
    } else if least > 1.0 {
        Outcome::More
    } else {
        Outcome::WithinSpread
    };
    Comparison {
        medians: [
            median(pairs.iter().map(|pair| pair.0)),
            median(pairs.iter().map(|pair| pair.1)),
        ],
        ratio: [least, median(ratios.iter().copied()), greatest],
        outcome,
    }
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => numbers[middle],
        _ => (numbers[middle - 1] + numbers[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median([].into_iter()).is_nan());
    }

    #[test]
    fn a_difference_counts_if_every_pair_has_it() {
        let compared = compare(&[(10.0, 9.0), (20.0, 10.0), (10.0, 8.0)]);
        assert_eq!(compared.outcome, Outcome::Less);
        assert_eq!(compared.ratio, [0.5, 0.8, 0.9]);
        assert_eq!(compared.medians, [10.0, 9.0]);
        let outcome = |pairs: &[(f64, f64)]| compare(pairs).outcome;
        assert_eq!(outcome(&[(1.0, 2.0), (1.0, 1.1)]), Outcome::More);
        assert_eq!(outcome(&[(1.0, 2.0), (1.0, 0.9)]), Outcome::WithinSpread);
        assert_eq!(outcome(&[(0.0, 0.0), (0.0, 0.0)]), Outcome::WithinSpread);
        assert_eq!(outcome(&[(1.0, 0.5)]), Outcome::OnePair);
    }
}
