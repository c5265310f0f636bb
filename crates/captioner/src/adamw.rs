//! AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101).
//!
//! Written here rather than taken from libtorch so that its moments are plain named tensors.

use tch::Tensor;

use crate::error::Result;
use crate::weights::NamedTensors;

const BETA1: f64 = 0.9;
/// BLIP's and PyTorch's default is 0.999; runs of a few hundred steps need a shorter memory.
const BETA2: f64 = 0.98;
const EPS: f64 = 1e-8;

struct Slot {
    name: String,
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    decays: bool,
}

/// The optimizer and its moments.
pub(super) struct AdamW {
    slots: Vec<Slot>,
    weight_decay: f64,
    steps: i32,
}

impl AdamW {
    /// For every tensor that has a gradient. Weight decay applies to matrices only, not to
    /// biases, norms and learned positions.
    pub(super) fn new(tensors: &NamedTensors, weight_decay: f64) -> Result<Self> {
        let slots = tensors
            .iter()
            .filter(|(_, tensor)| tensor.requires_grad())
            .map(|(name, tensor)| {
                Ok(Slot {
                    name: name.clone(),
                    mean: tensor.f_zeros_like()?,
                    square: tensor.f_zeros_like()?,
                    decays: tensor.dim() >= 2 && name.ends_with(".weight"),
                    parameter: tensor.shallow_clone(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { slots, weight_decay, steps: 0 })
    }

    /// Steps taken, and both moments of every parameter by its name, sharing their memory.
    pub(super) fn moments(&self) -> (i32, Vec<(&str, Tensor, Tensor)>) {
        let moments = self
            .slots
            .iter()
            .map(|slot| (slot.name.as_str(), slot.mean.shallow_clone(), slot.square.shallow_clone()));
        (self.steps, moments.collect())
    }

    /// Goes on as if `steps` steps had been taken, whose moments were put into place.
    pub(super) fn resume_at(&mut self, steps: i32) {
        self.steps = steps;
    }

    /// Forgets the moments of `rows` of a parameter: what they followed is gone.
    pub(super) fn forget_rows(&mut self, name: &str, rows: &[i64]) -> Result<()> {
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.name == name) else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let rows = Tensor::f_from_slice(rows)?.f_to_device(slot.mean.device())?;
        for moment in [&mut slot.mean, &mut slot.square] {
            let _ = moment.f_index_fill_(0, &rows, 0.0)?;
        }
        Ok(())
    }

    /// Forgets the gradients of the step before.
    pub(super) fn zero_grad(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.zero_grad();
        }
    }

    /// Adds the gradients of other tensors with the same names.
    pub(super) fn add_gradients(&mut self, tensors: &NamedTensors) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let others = tensors.values().filter(|tensor| tensor.requires_grad());
        for (slot, other) in self.slots.iter().zip(others) {
            let (mut grad, other) = (slot.parameter.f_grad()?, other.f_grad()?);
            if grad.defined() && other.defined() {
                let _ = grad.f_add_(&other)?;
            }
        }
        Ok(())
    }

    /// Euclidean norm of all gradients together, a scalar on the device.
    pub(super) fn gradient_norm(&self) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let norms = self
            .slots
            .iter()
            .map(|slot| slot.parameter.f_grad())
            .filter_map(|grad| grad.map(|g| g.defined().then_some(g)).transpose())
            .map(|grad| Ok(grad?.f_norm()?))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_stack(&norms, 0)?.f_norm()?)
    }

    /// One update with the gradients times `scale`.
    pub(super) fn step(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let correct1 = 1.0 - BETA1.powi(self.steps);
        let correct2 = (1.0 - BETA2.powi(self.steps)).sqrt();
        for slot in &mut self.slots {
            let grad = slot.parameter.f_grad()?;
            if !grad.defined() {
                continue;
            }
            let grad = grad.f_mul_scalar(scale)?;
            if slot.decays {
                let _ = slot.parameter.f_mul_scalar_(1.0 - learning_rate * self.weight_decay)?;
            }
            let _ = slot.mean.f_lerp_(&grad, 1.0 - BETA1)?;
            let _ = slot.square.f_mul_scalar_(BETA2)?;
            let _ = slot.square.f_addcmul_(&grad, &(&grad * (1.0 - BETA2)))?;
            let spread = slot.square.f_sqrt()?.f_div_scalar(correct2)?.f_add_scalar(EPS)?;
            let update = slot.mean.f_div(&spread)?.f_mul_scalar(-learning_rate / correct1)?;
            let _ = slot.parameter.f_add_(&update)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::weights::to_f32;

    #[test]
    fn update_equals_the_formula() {
        let start = [0.5f64, -2.0, 3.0];
        let parameter = Tensor::from_slice(&start).to_kind(Kind::Float).view([3, 1]).set_requires_grad(true);
        let tensors = NamedTensors::from([("a.weight".to_owned(), parameter.shallow_clone())]);
        let mut optimizer = AdamW::new(&tensors, 0.1).unwrap();
        let (mut x, mut m, mut v) = (start, [0.0; 3], [0.0; 3]);
        for step in 1..=5 {
            optimizer.zero_grad();
            // Loss sum(x^3): gradient 3 x^2.
            parameter.pow_tensor_scalar(3).sum(Kind::Float).backward();
            optimizer.step(0.01, 0.5).unwrap();
            for i in 0..3 {
                let g: f64 = 0.5 * 3.0 * x[i] * x[i];
                m[i] = BETA1 * m[i] + (1.0 - BETA1) * g;
                v[i] = BETA2 * v[i] + (1.0 - BETA2) * g * g;
                let mean = m[i] / (1.0 - BETA1.powi(step));
                let square = v[i] / (1.0 - BETA2.powi(step));
                x[i] = x[i] * (1.0 - 0.01 * 0.1) - 0.01 * mean / (square.sqrt() + EPS);
            }
        }
        for (found, expected) in to_f32(&parameter).unwrap().iter().zip(x) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn rows_are_forgotten_and_others_kept() {
        let codes = Tensor::ones([3, 2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
        let tensors = NamedTensors::from([("codes".to_owned(), codes.shallow_clone())]);
        let mut optimizer = AdamW::new(&tensors, 0.0).unwrap();
        codes.square().sum(Kind::Float).backward();
        optimizer.step(0.01, 1.0).unwrap();
        optimizer.forget_rows("codes", &[1]).unwrap();
        optimizer.forget_rows("others", &[1]).unwrap();
        let (steps, moments) = optimizer.moments();
        assert_eq!((steps, moments[0].0), (1, "codes"));
        for moment in [&moments[0].1, &moments[0].2] {
            let rows = to_f32(&moment.sum_dim_intlist([1i64].as_slice(), false, Kind::Float)).unwrap();
            assert!(rows[0] > 0.0 && rows[1] == 0.0 && rows[2] > 0.0, "{rows:?}");
        }
    }

    #[test]
    fn gradient_norm_spans_all_tensors() {
        let a = Tensor::from_slice(&[3f32]).set_requires_grad(true);
        let b = Tensor::from_slice(&[4f32]).set_requires_grad(true);
        let tensors =
            NamedTensors::from([("a".to_owned(), a.shallow_clone()), ("b".to_owned(), b.shallow_clone())]);
        let optimizer = AdamW::new(&tensors, 0.0).unwrap();
        ((a.square() + b.square()) / 2.0).sum(Kind::Float).backward();
        assert!((optimizer.gradient_norm().unwrap().double_value(&[]) - 5.0).abs() < 1e-6);
    }
}
