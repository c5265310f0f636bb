//! Reading: windows of encoded samples, of each lane and source in order.

mod locating;
pub(crate) mod reading;
