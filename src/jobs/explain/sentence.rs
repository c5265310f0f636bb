//! The facts of a sample in a sentence.

use super::facts::{Epochs, Explained, NearDuplicate, QuotaPlace};

impl Explained {
    /// Writes the sentence anew.
    pub(super) fn say(&mut self) {
        if self.outcome == "unknown" {
            let name = self.key.as_deref().unwrap_or_default();
            self.sentence =
                format!("{name} is not in this recording: no sample has this key, SHARD/KEY or id.");
            return;
        }
        let name = self.key.clone().unwrap_or_else(|| format!("id {}", self.id));
        let mut text = format!("{name} in {} {}", self.shard, self.verdict());
        if let Some(Epochs { kept, of }) = &self.epochs {
            let numbers: Vec<String> = kept.iter().map(u64::to_string).collect();
            let of = format!("of the epochs 0 to {}", of.saturating_sub(1));
            text += &match numbers.len() {
                0 => format!("; {of} none keeps it"),
                1 => format!("; {of} epoch {} keeps it", numbers[0]),
                _ => format!("; {of} epochs {} keep it", numbers.join(", ")),
            };
        }
        text.push('.');
        self.sentence = text;
    }

    fn verdict(&self) -> String {
        let detail = self.detail.as_deref();
        match (self.outcome, self.reason) {
            ("failed", reason) => {
                let why = detail.map_or(String::new(), |detail| format!(": {detail}"));
                format!("failed ({}){why}", reason.unwrap_or("unknown"))
            }
            ("excluded", _) => format!(
                "is excluded: {}",
                detail.unwrap_or("where, or a subset, of the source does not let it pass")
            ),
            ("usable", _) => {
                format!("is usable, and no plan or policy was given to decide{}", self.measured())
            }
            ("dropped", Some("gate")) => format!("is dropped by the gate{}", self.measured()),
            ("dropped", Some("near-duplicate")) => {
                let of = self.near.as_ref().map_or("of another candidate".into(), near);
                format!("is dropped as a near-duplicate {of}")
            }
            ("dropped", Some("thin")) => {
                "is dropped unseen: it is not in the share of the stream that thin looks at".into()
            }
            ("dropped", _) => {
                let cluster = self.cluster.filter(|_| self.by_cluster);
                let cluster = cluster.map_or(String::new(), |cluster| format!(" of cluster {cluster}"));
                format!("is dropped by the quota{cluster}{}{}", self.place(false), self.gate_passed())
            }
            _ if self.near.is_some() => {
                let of = self.near.as_ref().map_or(String::new(), near);
                format!("is kept, a near-duplicate {of}: it fills a slot that no other candidate is left for")
            }
            _ => format!("is kept{}{}", self.place(true), self.gate_passed()),
        }
    }

    /// What the gate looked at, and where it cuts.
    fn measured(&self) -> String {
        let by_score = self.gate.as_ref().is_some_and(|gate| gate.by != "alignment");
        let (what, value) = match &self.gate {
            Some(gate) if by_score => (gate.by.as_str(), self.score),
            _ => ("alignment", self.alignment),
        };
        match (value, &self.gate) {
            (Some(value), Some(gate)) if value < gate.least => {
                let (value, least) = apart(value, gate.least);
                format!(": its {what} {value} is below {least}, the least that passes")
            }
            (Some(value), _) => format!(": its {what} is {}", number(value)),
            (None, Some(gate)) => {
                format!(": it has no {}, where {} is the least that passes", gate.by, number(gate.least))
            }
            (None, None) => String::new(),
        }
    }

    fn gate_passed(&self) -> String {
        let Some(gate) = &self.gate else { return String::new() };
        if self.rescued {
            let said =
                self.judged.map_or(String::new(), |judged| format!(" ({} by the judge)", number(judged)));
            return format!(
                "; its generated caption brought it back{said} after the gate{}",
                self.measured()
            );
        }
        let value = if gate.by == "alignment" { self.alignment } else { self.score };
        let (value, least) = match value {
            Some(value) => apart(value, gate.least),
            None => (String::new(), number(gate.least)),
        };
        format!("; its {} {value} passes the gate ({least} or more)", gate.by)
    }

    fn place(&self, kept: bool) -> String {
        let cluster = self.cluster.filter(|_| self.by_cluster);
        // A plan draws from the whole corpus.
        let all =
            if self.quota.is_some_and(|quota| quota.slots.is_some()) { "the corpus" } else { "its window" };
        let cluster = || cluster.map_or(all.to_owned(), |cluster| format!("cluster {cluster}"));
        match self.quota {
            Some(QuotaPlace { place: Some(place), left: Some(left), slots: Some(slots), .. }) if kept => {
                format!(
                    ": number {place} in the draw of {left} candidates of {}, of which {slots} are kept",
                    cluster()
                )
            }
            Some(QuotaPlace { place: Some(place), left: Some(left), slots: Some(slots), .. }) => {
                format!(": it is number {place} in the draw of {left} candidates, of which {slots} are kept")
            }
            Some(QuotaPlace { draw, rate: Some(rate), .. }) if kept && draw < rate => {
                format!(": its draw {draw:.3} is below {rate:.3}, the rate of {}", cluster())
            }
            Some(QuotaPlace { draw, rate: Some(rate), .. }) if !kept && draw >= rate => {
                format!(": its draw {draw:.3} is not below the rate {rate:.3}")
            }
            Some(QuotaPlace { rate: Some(rate), .. }) => {
                format!(": by its priority, at a rate of {rate:.3}")
            }
            _ => String::new(),
        }
    }
}

/// What it is a near-duplicate of.
fn near(of: &NearDuplicate) -> String {
    let name = of.key.clone().unwrap_or_else(|| format!("id {}", of.id));
    let mut measured = vec![];
    if let Some(cosine) = of.cosine {
        measured.push(format!("cosine {cosine:.3}"));
    }
    if let Some(bits) = of.bits {
        measured.push(format!("{bits} of 256 bits differ"));
    }
    let kept = if of.kept { "which is kept" } else { "which the quota dropped" };
    format!("of {name} in {}, {kept} ({})", of.shard, measured.join(", "))
}

fn number(value: f32) -> String {
    digits(value, 3)
}

fn digits(value: f32, count: usize) -> String {
    let text = format!("{value:.count$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Two numbers with as many digits as tell them apart, where they differ.
fn apart(a: f32, b: f32) -> (String, String) {
    let shown = (3..9).map(|count| (digits(a, count), digits(b, count)));
    let told = shown.clone().find(|(a, b)| a != b).filter(|_| a != b);
    told.or_else(|| shown.into_iter().next()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::apart;

    #[test]
    fn a_value_below_the_cut_does_not_read_as_the_cut() {
        let text = |a, b| {
            let (a, b) = apart(a, b);
            format!("{a} {b}")
        };
        assert_eq!(text(0.34, 0.5), "0.34 0.5");
        assert_eq!(text(0.499_522_6, 0.5), "0.4995 0.5");
        assert_eq!(text(0.499_999_97, 0.5), "0.49999997 0.5");
        assert_eq!(text(0.5, 0.5), "0.5 0.5");
        assert_eq!(text(-1.25, 2.0), "-1.25 2");
    }
}
