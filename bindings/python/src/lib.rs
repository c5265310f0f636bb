//! Prototype.
mod hand_over;
/// Prototype.
#[pyo3::pymodule]
mod _native {
    #[pymodule_export]
    use crate::hand_over::_hand_over;
}
