//! Histograms of a stream: bins of equal width over a range that is known, or that grows with what comes.

use serde::Serialize;

/// Counts in bins of equal width, of what is kept and of what is dropped.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Histogram {
    /// Where the first bin starts.
    pub(crate) from: f64,
    /// Width of a bin.
    pub(crate) step: f64,
    /// Kept samples, `[bins]`.
    pub(crate) kept: Vec<u64>,
    /// Dropped samples, `[bins]`.
    pub(crate) dropped: Vec<u64>,
    /// Of these, values at the end of the last bin or above: what a gate at that end lets pass.
    pub(crate) top: u64,
    #[serde(skip)]
    grows: bool,
}

impl Histogram {
    /// Over `[from, to]`; what lies outside counts in the outermost bins.
    pub(crate) fn over(from: f64, to: f64, bins: usize) -> Self {
        let step = (to - from) / bins as f64;
        Self { from, step, kept: vec![0; bins], dropped: vec![0; bins], top: 0, grows: false }
    }

    /// Over a range that grows: two bins become one where a value lies outside.
    pub(crate) fn growing(bins: usize) -> Self {
        Self { from: 0.0, step: 0.0, kept: vec![0; bins], dropped: vec![0; bins], top: 0, grows: true }
    }

    pub(crate) fn add(&mut self, value: f32, is_kept: bool) {
        if !value.is_finite() {
            return;
        }
        let value = f64::from(value);
        if self.grows {
            self.make_room(value);
        }
        let bin = self.bin(value);
        let bins = if is_kept { &mut self.kept } else { &mut self.dropped };
        bins[bin] += 1;
        // A range that grows has no value at its end.
        let end = (self.from + self.step * self.kept.len() as f64) as f32;
        self.top += u64::from(!self.grows && value >= f64::from(end));
    }

    /// The bin of a value. A bin starts at the number that a gate there would compare with, which is an f32.
    fn bin(&self, value: f64) -> usize {
        let last = self.kept.len() - 1;
        let edge = |bin: usize| f64::from((self.from + bin as f64 * self.step) as f32);
        let guess = ((value - self.from) / self.step).floor().clamp(0.0, last as f64) as usize;
        let up = guess + usize::from(guess < last && value >= edge(guess + 1));
        up - usize::from(up > 0 && value < edge(up))
    }

    fn make_room(&mut self, value: f64) {
        let bins = self.kept.len();
        if self.step == 0.0 {
            // The first value: bins about it, a thousandth of it wide.
            self.step = 2f64.powi(((value.abs().max(1e-6)) / 1000.0).log2().floor() as i32);
            self.from = (value / self.step).floor() * self.step - self.step * (bins / 2) as f64;
        }
        while value < self.from || value >= self.from + self.step * bins as f64 {
            let below = value < self.from;
            for counts in [&mut self.kept, &mut self.dropped] {
                let pairs: Vec<u64> = counts.chunks(2).map(|pair| pair.iter().sum()).collect();
                counts.fill(0);
                let at = if below { bins - pairs.len() } else { 0 };
                counts[at..at + pairs.len()].copy_from_slice(&pairs);
            }
            self.from -= if below { self.step * bins as f64 } else { 0.0 };
            self.step *= 2.0;
        }
    }

    /// All that was counted.
    #[cfg(test)]
    fn total(&self) -> u64 {
        self.kept.iter().chain(&self.dropped).sum()
    }

    /// Without empty bins at either end.
    pub(crate) fn trimmed(mut self) -> Self {
        let is_used = |bin: usize| self.kept[bin] + self.dropped[bin] > 0;
        let bins = self.kept.len();
        let Some(first) = (0..bins).find(|&bin| is_used(bin)) else { return self };
        let last = (0..bins).rev().find(|&bin| is_used(bin)).unwrap_or(first);
        self.from += self.step * first as f64;
        self.kept = self.kept[first..=last].to_vec();
        self.dropped = self.dropped[first..=last].to_vec();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_start_where_a_gate_would_cut() {
        let mut found = Histogram::over(0.0, 1.0, 200);
        let values: Vec<f32> = (0..=2000).map(|i| i as f32 / 2000.0).collect();
        values.iter().for_each(|&value| found.add(value, true));
        for bin in 0..200 {
            let cut = (bin as f64 / 200.0) as f32;
            let passing = values.iter().filter(|&&value| value >= cut).count() as u64;
            assert_eq!(found.kept[bin..].iter().sum::<u64>(), passing, "{bin}");
        }
        // A gate at the end lets pass what is exactly there.
        assert_eq!((found.top, found.kept[199]), (1, 11));
        found.add(1.0, false);
        assert_eq!(found.top, 2);
    }

    #[test]
    fn a_range_grows_and_loses_nothing() {
        let mut found = Histogram::growing(64);
        for value in [0.31f32, 0.28, -4.0, 900.0, 0.3, f32::NAN] {
            found.add(value, value < 0.3);
        }
        assert_eq!((found.total(), found.kept.iter().sum::<u64>()), (5, 2));
        let end = found.from + found.step * 64.0;
        assert!(found.from <= -4.0 && end > 900.0, "{found:?}");
        assert_eq!(found.clone().trimmed().total(), 5);
    }
}
