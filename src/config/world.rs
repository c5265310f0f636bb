//! Which of how many processes a loader is of.

crate::group! {
    /// This process among those that share the corpus.
    pub struct World, fields of world {
        /// Its rank, with `world_size`. Default: that of the process group (torch.distributed's), else `RANK` with
        /// `WORLD_SIZE` of the environment, else what Open MPI, PMI (MPICH, Intel MPI) or a step of Slurm says, else 0:
        /// the first of these that says both. Where `WORLD_SIZE` is set and `RANK` is not, the process group says it with
        /// the first batch.
        Runtime rank: Option<usize> = None, some usize;
        /// Number of processes that share the corpus, with `rank`. It may be smaller than that of the process group: 1 for
        /// a loader that one rank has for itself, the number of data-parallel ranks where several processes see the same
        /// data. Default: as for the rank, else 1.
        Runtime world_size: Option<usize> = None, some usize;
        /// Canonical streams; a multiple of the world size that divides the global batch. A state resumes on as many ranks
        /// as divide the lanes. Default: 8, which 1, 2, 4 and 8 ranks share; 4, 2 or 1 where 8 does not divide the global
        /// batch; the world size where that divides none of them. A run that is to grow further starts with the largest
        /// world size that is planned.
        Order lanes: Option<usize> = None, some usize;
    }
}
