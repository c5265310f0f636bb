//! Which of how many processes a loader belongs to, and who says so.
//!
//! Launchers say it in different ways, and some only half: the first source that says both, rank and number of
//! processes, is believed. In order: the loader's own options, a process group, torchrun's `RANK` with
//! `WORLD_SIZE`, Open MPI, PMI (MPICH, Intel MPI, Slurm's `--mpi=pmi2`), a step of Slurm's. Who says nothing is alone.
//! What is said by halves is an error, since a process that is wrong about its rank reads what others read.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Variables of a rank and a number of processes, in the order in which they are believed.
const LAUNCHERS: [Variables; 4] = [
    TORCHRUN,
    Variables { rank: "OMPI_COMM_WORLD_RANK", world_size: "OMPI_COMM_WORLD_SIZE" },
    Variables { rank: "PMI_RANK", world_size: "PMI_SIZE" },
    SLURM,
];
/// What torchrun sets, and most who follow it. Lightning's own launcher leaves out the rank.
const TORCHRUN: Variables = Variables { rank: "RANK", world_size: "WORLD_SIZE" };
/// What a task of `srun` has. A shell of `sbatch` or `salloc` has `SLURM_NTASKS`, and a batch shell `SLURM_PROCID`,
/// though it is one process.
const SLURM: Variables = Variables { rank: "SLURM_PROCID", world_size: "SLURM_STEP_NUM_TASKS" };
const SLURM_TASKS: &str = "SLURM_NTASKS";
/// Processes that there can be: more than any machine has, and few enough for global batches to be counted.
const MAX_WORLD: usize = 1 << 24;

/// A pair of environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variables {
    rank: &'static str,
    world_size: &'static str,
}

impl Variables {
    fn read(self, variable: &impl Fn(&str) -> Option<String>) -> Result<Said> {
        let number = |name: &'static str| {
            let Some(text) = variable(name).filter(|text| !text.trim().is_empty()) else { return Ok(None) };
            text.trim().parse().map(Some).map_err(|_| {
                let expected =
                    "expected a whole number; unset the environment variable where it is left over";
                wrong(format!("invalid {name}={text}: {expected}"))
            })
        };
        let said = Said { by: self, rank: number(self.rank)?, world_size: number(self.world_size)? };
        match (said.rank, said.world_size) {
            (_, Some(0)) => Err(wrong(format!("invalid {}=0: expected at least 1", self.world_size))),
            (_, Some(size)) if size > MAX_WORLD => {
                Err(wrong(format!("invalid {}={size}: expected at most {MAX_WORLD}", self.world_size)))
            }
            (Some(rank), Some(size)) if rank >= size => Err(wrong(format!(
                "invalid {}={rank}: expected less than {}={size}",
                self.rank, self.world_size
            ))),
            _ => Ok(said),
        }
    }
}

/// What a pair of variables says.
#[derive(Debug, Clone, Copy)]
struct Said {
    by: Variables,
    rank: Option<usize>,
    world_size: Option<usize>,
}

impl Said {
    fn both(&self) -> Option<(usize, usize)> {
        self.rank.zip(self.world_size)
    }

    /// The one that is there and the one that is missing, where it is one of them.
    fn half(&self) -> Option<(&'static str, usize, &'static str)> {
        match (self.rank, self.world_size) {
            (Some(rank), None) => Some((self.by.rank, rank, self.by.world_size)),
            (None, Some(size)) => Some((self.by.world_size, size, self.by.rank)),
            _ => None,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = [(self.by.rank, self.rank), (self.by.world_size, self.world_size)];
        let set: Vec<String> =
            values.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))).collect();
        f.write_str(&set.join(" "))
    }
}

/// Who says which rank a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The loader's options.
    Options,
    /// An initialised process group.
    Group,
    /// A launcher, by its variables.
    Launcher(Variables),
    /// `WORLD_SIZE` is set, `RANK` is not: a process group will say it, or has.
    Later,
    /// Nobody: one process.
    Nobody,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => f.write_str("its options"),
            Self::Group => f.write_str("the process group"),
            Self::Launcher(Variables { rank, world_size }) => write!(f, "{rank} and {world_size}"),
            Self::Later => f.write_str("WORLD_SIZE and the process group"),
            Self::Nobody => f.write_str("no launcher: a single process"),
        }
    }
}

/// The place of a loader among those that share the corpus.
#[derive(Debug)]
pub(crate) struct Ranks {
    pub(crate) world_size: usize,
    rank: OnceLock<usize>,
    source: Source,
    /// Whether the log has it.
    logged: AtomicBool,
}

impl Ranks {
    fn new(rank: Option<usize>, world_size: usize, source: Source) -> Self {
        let rank = rank.map_or_else(OnceLock::new, OnceLock::from);
        Self { world_size, rank, source, logged: AtomicBool::new(false) }
    }

    /// The place that this process has by the options `given`, by its process `group`, both as (rank, world
    /// size), or by its environment.
    ///
    /// # Errors
    /// Sources that contradict each other, or say one without the other; names them.
    pub(crate) fn find(
        given: (Option<usize>, Option<usize>),
        group: Option<(usize, usize)>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        if let Some((rank, world_size)) = options(given)? {
            return Ok(Self::new(Some(rank), world_size, Source::Options));
        }
        let torchrun = TORCHRUN.read(&variable)?;
        if let Some((rank, world_size)) = group {
            let equal = torchrun.rank.is_none_or(|r| r == rank)
                && torchrun.world_size.is_none_or(|size| size == world_size);
            if equal {
                return Ok(Self::new(Some(rank), world_size, Source::Group));
            }
            return Err(wrong(format!(
                "this process is rank {rank} of {world_size} in the process group, but its environment has \
                 {torchrun}: unset these variables where they are left over or count something else, or give the \
                 loader rank={rank} and world_size={world_size}"
            )));
        }
        let mut halves = vec![];
        for launcher in LAUNCHERS {
            let said = launcher.read(&variable)?;
            let Some((rank, size)) = said.both().filter(|_| !inherited(&said, &variable)) else {
                halves.push(said);
                continue;
            };
            // What torchrun's variables say by halves must hold of the others too.
            let fits =
                torchrun.rank.is_none_or(|r| r == rank) && torchrun.world_size.is_none_or(|all| all == size);
            if fits {
                return Ok(Self::new(Some(rank), size, Source::Launcher(launcher)));
            }
            // Except that another launcher may have started one process, or one a node, and WORLD_SIZE counts
            // the children of these.
            let of_children = torchrun.rank.is_none() && torchrun.world_size.is_some_and(|all| all > 1);
            if !of_children {
                return Err(wrong(format!(
                    "the environment contradicts itself: {said}, but {torchrun}; unset what is left over, or give the \
                     loader rank and world_size"
                )));
            }
        }
        if let Some(size) = torchrun.world_size.filter(|&size| size > 1) {
            return Ok(Self::new(None, size, Source::Later));
        }
        for said in halves.iter().filter(|said| said.by != SLURM && said.world_size != Some(1)) {
            if let Some((there, value, missing)) = said.half() {
                return Err(wrong(format!(
                    "the environment has {there}={value} but no {missing}, so that this process cannot know its share: \
                     set both, unset {there} where it is left over, or give the loader rank and world_size"
                )));
            }
        }
        let tasks = variable(SLURM_TASKS).and_then(|text| text.trim().parse::<usize>().ok());
        if let Some(tasks) = tasks.filter(|&tasks| tasks > 1) {
            tracing::warn!(
                "{SLURM_TASKS}={tasks}, but srun did not start this process (a shell of sbatch or salloc has the variable \
                 too): the loader takes it for the only one and reads the whole corpus. Start the tasks with srun or \
                 torchrun, or give the loader rank and world_size"
            );
        }
        Ok(Self::new(Some(0), 1, Source::Nobody))
    }

    /// Compares what was found with the process `group` that there is now (rank, world size), and has the rank
    /// from it where only that was missing. The loader's own options may say otherwise.
    ///
    /// # Errors
    /// Another rank or number of processes.
    pub(crate) fn join(&self, (rank, world_size): (usize, usize)) -> Result<()> {
        if self.source == Source::Options {
            return Ok(());
        }
        if self.world_size == world_size && *self.rank.get_or_init(|| rank) == rank {
            return Ok(());
        }
        let own = self.rank.get().map_or("one".into(), |own| format!("rank {own}"));
        Err(wrong(format!(
            "this process is rank {rank} of {world_size} in the process group, but its loader was made as {own} of {}, \
             from {}: make the loader after init_process_group (with Lightning, in train_dataloader), or give it \
             rank={rank} and world_size={world_size}",
            self.world_size, self.source
        )))
    }

    /// The rank, if it is known yet.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.rank.get().copied()
    }

    /// The rank, which the first time goes to the log.
    ///
    /// # Errors
    /// It is not known: names what is there and what is missing.
    pub(crate) fn settled(&self) -> Result<usize> {
        let Some(rank) = self.rank() else {
            return Err(wrong(format!(
                "the environment has WORLD_SIZE={} but no RANK, and no process group is initialised that could say the \
                 rank: call init_process_group before the first batch, start with torchrun, or give the loader rank \
                 and world_size",
                self.world_size
            )));
        };
        if !self.logged.swap(true, Ordering::Relaxed) {
            tracing::info!("rank {rank} of {}, from {}", self.world_size, self.source);
        }
        Ok(rank)
    }

    /// Who says it, in words.
    pub(crate) fn source(&self) -> String {
        self.source.to_string()
    }
}

fn wrong(message: String) -> Error {
    ErrorKind::Ranks(message).into()
}

/// What the loader's options say.
///
/// # Errors
/// One of the two alone, unless it is a world of one; values that cannot be.
fn options((rank, world_size): (Option<usize>, Option<usize>)) -> Result<Option<(usize, usize)>> {
    match (rank, world_size) {
        (None, None) => Ok(None),
        (_, Some(0)) => Err(Error::option("world_size", 0, "at least 1")),
        (_, Some(size)) if size > MAX_WORLD => {
            Err(Error::option("world_size", size, format!("at most {MAX_WORLD}")))
        }
        (None, Some(1)) => Ok(Some((0, 1))),
        (None, Some(size)) => Err(Error::option("world_size", size, "rank to be given too, or neither")),
        (Some(rank), None) => Err(Error::option("rank", rank, "world_size to be given too, or neither")),
        (Some(rank), Some(size)) if rank >= size => {
            Err(Error::option("rank", rank, format!("below the world size, {size}")))
        }
        (Some(rank), Some(size)) => Ok(Some((rank, size))),
    }
}

/// Whether these are variables of a step that this process is not a task of: a job that a task submits inherits
/// them, and has a number of tasks of its own.
fn inherited(said: &Said, variable: &impl Fn(&str) -> Option<String>) -> bool {
    let tasks = variable(SLURM_TASKS).and_then(|text| text.trim().parse::<usize>().ok());
    said.by == SLURM && tasks.is_some_and(|tasks| Some(tasks) != said.world_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found by options, group and environment: rank (if known), number and source; or the error.
    fn find(
        given: (Option<usize>, Option<usize>),
        group: Option<(usize, usize)>,
        environment: &[(&str, &str)],
    ) -> std::result::Result<(Option<usize>, usize, String), String> {
        let variable =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let world = Ranks::find(given, group, variable).map_err(|error| error.to_string())?;
        Ok((world.rank(), world.world_size, world.source()))
    }

    fn by(environment: &[(&str, &str)]) -> std::result::Result<(Option<usize>, usize, String), String> {
        find((None, None), None, environment)
    }

    const TORCH: [(&str, &str); 2] = [("RANK", "1"), ("WORLD_SIZE", "4")];
    const MPI: [(&str, &str); 2] = [("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "5")];
    const PMI: [(&str, &str); 2] = [("PMI_RANK", "3"), ("PMI_SIZE", "6")];
    const STEP: [(&str, &str); 3] =
        [("SLURM_PROCID", "4"), ("SLURM_STEP_NUM_TASKS", "7"), ("SLURM_NTASKS", "7")];

    #[test]
    fn the_first_source_that_says_both_is_believed() {
        // Sources in order, each with what it says. Whatever stands behind one changes nothing.
        let sources = [
            (&TORCH[..], 1, 4, "RANK and WORLD_SIZE"),
            (&MPI, 2, 5, "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE"),
            (&PMI, 3, 6, "PMI_RANK and PMI_SIZE"),
            (&STEP, 4, 7, "SLURM_PROCID and SLURM_STEP_NUM_TASKS"),
        ];
        for present in 0..16 {
            let there = sources.iter().enumerate().filter(|(i, _)| present >> i & 1 == 1).map(|(_, s)| s);
            let environment: Vec<(&str, &str)> = there.clone().flat_map(|s| s.0).copied().collect();
            let expected = there.clone().next().map_or_else(
                || (Some(0), 1, "no launcher: a single process".to_owned()),
                |&(_, rank, size, source)| (Some(rank), size, source.to_owned()),
            );
            assert_eq!(by(&environment).unwrap(), expected, "{environment:?}");
            let options = find((Some(8), Some(9)), Some((0, 3)), &environment).unwrap();
            assert_eq!(options, (Some(8), 9, "its options".to_owned()));
            // A group comes before all of them, and only torchrun's variables are compared with it.
            let group = find((None, None), Some((1, 4)), &environment).unwrap();
            assert_eq!(group, (Some(1), 4, "the process group".to_owned()));
            let other = find((None, None), Some((0, 4)), &environment);
            assert_eq!(other.is_err(), present & 1 == 1);
        }
    }

    #[test]
    fn half_a_source_is_no_source() {
        for (environment, there, missing) in [
            (&TORCH[..1], "RANK=1", "no WORLD_SIZE"),
            (&MPI[..1], "OMPI_COMM_WORLD_RANK=2", "no OMPI_COMM_WORLD_SIZE"),
            (&MPI[1..], "OMPI_COMM_WORLD_SIZE=5", "no OMPI_COMM_WORLD_RANK"),
            (&PMI[..1], "PMI_RANK=3", "no PMI_SIZE"),
            (&PMI[1..], "PMI_SIZE=6", "no PMI_RANK"),
        ] {
            let message = by(environment).unwrap_err();
            assert!(message.contains(there) && message.contains(missing), "{message}");
            // One that is whole is believed nevertheless, unless it contradicts torchrun's half.
            let whole = by(&[environment, &STEP[..]].concat());
            if environment == &TORCH[..1] {
                assert!(whole.unwrap_err().contains("contradicts itself"));
            } else {
                assert_eq!(whole.unwrap().1, 7);
            }
        }
        let rank = [("RANK", "4")];
        assert_eq!(by(&[&rank[..], &STEP].concat()).unwrap().2, "SLURM_PROCID and SLURM_STEP_NUM_TASKS");
        // A size of one leaves nothing open.
        for size in ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
            assert_eq!(by(&[(size, "1")]).unwrap().0, Some(0));
        }
        let message = by(&[&[("WORLD_SIZE", "1")][..], &STEP].concat()).unwrap_err();
        assert!(message.contains("SLURM_PROCID=4 SLURM_STEP_NUM_TASKS=7, but WORLD_SIZE=1"), "{message}");
    }

    #[test]
    fn a_shell_of_slurm_is_one_process() {
        let batch = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "2")];
        // A job that a task of another job submits inherits the variables of that task's step.
        let submitted = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_NTASKS", "1")];
        for environment in [&batch[..], &batch[1..], &submitted] {
            assert_eq!(by(environment).unwrap(), (Some(0), 1, "no launcher: a single process".into()));
        }
    }

    #[test]
    fn a_rank_that_is_missing_comes_from_the_group() {
        let lightning = [("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("NODE_RANK", "0")];
        let world = || {
            let variable =
                |name: &str| lightning.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Ranks::find((None, None), None, variable).unwrap()
        };
        let alone = world();
        assert_eq!((alone.rank(), alone.world_size), (None, 2));
        let message = alone.settled().unwrap_err().to_string();
        assert!(message.contains("WORLD_SIZE=2 but no RANK"), "{message}");
        let joined = world();
        joined.join((1, 2)).unwrap();
        assert_eq!(joined.settled().unwrap(), 1);
        joined.join((1, 2)).unwrap();
        assert!(joined.join((0, 2)).unwrap_err().to_string().contains("made as rank 1 of 2"));
        assert!(world().join((1, 3)).unwrap_err().to_string().contains("made as one of 2"));
        // In a shell that srun gave a terminal, Slurm counts one task; Lightning starts more.
        let shell = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "1")];
        assert_eq!(by(&[&lightning[..], &shell].concat()).unwrap().0, None);
        // Its own tasks are as many as it says.
        let tasks = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_NTASKS", "2")];
        assert_eq!(by(&[&lightning[..], &tasks].concat()).unwrap().0, Some(1));
    }

    #[test]
    fn a_loader_from_before_the_group_is_refused_unless_its_options_say_so() {
        let message =
            Ranks::find((None, None), None, |_| None).unwrap().join((1, 2)).unwrap_err().to_string();
        assert!(
            message.contains("rank 1 of 2 in the process group") && message.contains("rank 0 of 1"),
            "{message}"
        );
        Ranks::find((Some(0), Some(1)), None, |_| None).unwrap().join((1, 2)).unwrap();
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for (environment, part) in [
            ([("RANK", "2"), ("WORLD_SIZE", "2")], "invalid RANK=2: expected less than WORLD_SIZE=2"),
            ([("RANK", "0"), ("WORLD_SIZE", "0")], "invalid WORLD_SIZE=0: expected at least 1"),
            ([("RANK", "-1"), ("WORLD_SIZE", "2")], "invalid RANK=-1: expected a whole number"),
            ([("RANK", "0"), ("WORLD_SIZE", "18446744073709551615")], "expected at most 16777216"),
        ] {
            let message = by(&environment).unwrap_err();
            assert!(message.contains(part), "{message}");
        }
        // Empty is not set.
        assert_eq!(by(&[("RANK", ""), ("WORLD_SIZE", " ")]).unwrap().1, 1);
        for given in
            [(Some(1), None), (None, Some(2)), (Some(2), Some(2)), (None, Some(0)), (Some(0), Some(1 << 25))]
        {
            assert!(find(given, None, &[]).is_err(), "{given:?}");
        }
        assert_eq!(find((None, Some(1)), Some((1, 2)), &TORCH).unwrap().0, Some(0));
    }
}
