//! What the folder of a ledger holds, told from the names of its files.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use crate::error::{Error, Result};
use crate::ledger::files::window_of;
use crate::ledger::root::{Entry, Root};

/// Folder of the signals.
const SIGNALS: &str = "signals";

/// The signals that one captioner gave under one set of reading options and one window size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Fingerprint of the scorer; 0 where none ran.
    pub scorer: u64,
    /// Fingerprint of the reading options.
    pub reading: u64,
    /// Samples per window.
    pub size: usize,
    /// Its shards, in order of their hashes; of a shard that changed, the version recorded last.
    pub shards: Vec<RecordedShard>,
    /// Fingerprints of the generation settings of captions of these windows, in order.
    pub generations: Vec<u64>,
    /// Fingerprints of the judgements of generated captions of these windows (generator, judge and how they compute), in
    /// order.
    pub judgements: Vec<u64>,
}

/// The recorded windows of one version of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedShard {
    /// [`SampleId::shard_hash`](crate::SampleId::shard_hash).
    pub hash: u64,
    /// Hash of the version.
    pub version: u64,
    /// Indices of its windows, in order.
    pub windows: Vec<u64>,
}

/// Scorer, reading options and window size of each recording below the folder `root`, in order.
pub(super) fn kinds(root: &Root) -> Result<Vec<(u64, u64, usize)>> {
    let settings = named(root, Path::new(SIGNALS))?;
    let of = |entry: &Entry| {
        let [scorer, reading, size] = numbers(&entry.name, [16, 16, 10])?;
        Some((scorer, reading, size as usize))
    };
    Ok(settings.iter().filter_map(of).collect())
}

/// All recordings below the folder `root`, in order of scorer, reading and size. Files of other names
/// are skipped.
pub(super) fn recordings(root: &Root) -> Result<Vec<Recording>> {
    let mut recordings = vec![];
    let signals = Path::new(SIGNALS);
    for settings in named(root, signals)? {
        let Some([scorer, reading, size]) = numbers(&settings.name, [16, 16, 10]) else { continue };
        let folder = signals.join(&settings.name);
        let mut shards: BTreeMap<u64, (SystemTime, RecordedShard)> = BTreeMap::new();
        for shard in named(root, &folder)? {
            let Some([hash, version]) = numbers(&shard.name, [16, 16]) else { continue };
            let (windows, changed) = windows(&named(root, &folder.join(&shard.name))?);
            let newer =
                shards.get(&hash).is_none_or(|(other, shard)| (*other, shard.version) < (changed, version));
            if newer && !windows.is_empty() {
                shards.insert(hash, (changed, RecordedShard { hash, version, windows }));
            }
        }
        if !shards.is_empty() {
            let shards = shards.into_values().map(|(_, shard)| shard).collect();
            let (generations, judgements) = (vec![], vec![]);
            let size = size as usize;
            recordings.push(Recording { scorer, reading, size, shards, generations, judgements });
        }
    }
    let mut each_of = |folder: &str, add: fn(&mut Recording, u64)| -> Result<()> {
        for settings in named(root, Path::new(folder))? {
            let Some([fingerprint, reading, size]) = numbers(&settings.name, [16, 16, 10]) else { continue };
            let of = recordings.iter_mut().filter(|r| r.reading == reading && r.size as u64 == size);
            of.for_each(|recording| add(recording, fingerprint));
        }
        Ok(())
    };
    each_of("captions", |recording, generation| recording.generations.push(generation))?;
    each_of("scores", |recording, judgement| recording.judgements.push(judgement))?;
    recordings.sort_by_key(|r| (r.scorer, r.reading, r.size));
    Ok(recordings)
}

/// What a folder holds, sorted by name; nothing where it is not there.
fn named(root: &Root, below: &Path) -> Result<Vec<Entry>> {
    root.list(below).map_err(|error| Error::io(format!("list {}", root.name_of(below)), error))
}

/// Numbers of the windows that have a file, in order, and when the last of them was written.
fn windows(files: &[Entry]) -> (Vec<u64>, SystemTime) {
    let (mut numbers, mut changed) = (vec![], SystemTime::UNIX_EPOCH);
    for Entry { name, modified } in files {
        if let Some(window) = window_of(name) {
            numbers.push(window);
            changed = changed.max(*modified);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    (numbers, changed)
}

/// The parts of a name between its hyphens, as numbers of these bases.
fn numbers<const N: usize>(name: &str, bases: [u32; N]) -> Option<[u64; N]> {
    let mut parts = name.split('-');
    let mut numbers = [0; N];
    for (number, base) in numbers.iter_mut().zip(bases) {
        *number = u64::from_str_radix(parts.next()?, base).ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_of_files_tell_what_is_there() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let (a, b) = (format!("{:016x}-{:016x}-64", 5, 7), format!("{:016x}-{:016x}-64", 0, 7));
        let shard = |hash: u64, version: u64| format!("{hash:016x}-{version:016x}");
        for window in [10, 2, 0] {
            make(&format!("signals/{a}/{}/{window:06}-00ff.parquet", shard(1, 3)));
        }
        make(&format!("signals/{a}/{}/000000-00fe.parquet", shard(1, 3)));
        make(&format!("signals/{b}/{}/000000-00fe.parquet", shard(2, 3)));
        make(&format!("captions/{a}/{}/000000-00fe.parquet", shard(1, 3)));
        make(&format!("scores/{:016x}-{:016x}-64/{}/000000-00fe.parquet", 9, 7, shard(1, 3)));
        make("signals/notes.txt");
        make(&format!("signals/{a}/rubbish/000000-00ff.parquet"));
        let found = recordings(&Root::Local(root.path().into())).unwrap();
        let recorded = |hash, windows: &[u64]| RecordedShard { hash, version: 3, windows: windows.to_vec() };
        let expected = |scorer, shards| Recording {
            scorer,
            reading: 7,
            size: 64,
            shards,
            generations: vec![5],
            judgements: vec![9],
        };
        assert_eq!(
            found,
            [expected(0, vec![recorded(2, &[0])]), expected(5, vec![recorded(1, &[0, 2, 10])])]
        );
        assert!(recordings(&Root::Local(root.path().join("absent"))).unwrap().is_empty());
    }
}
