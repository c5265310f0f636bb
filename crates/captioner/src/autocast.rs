//! Matrix products in bf16, everything else in f32, as PyTorch's autocast does it.
//!
//! Written here because tch's own autocast computes in f16, which needs its losses scaled.

use std::cell::Cell;

use tch::{Kind, Tensor};

use crate::error::Result;

thread_local! {
    static KIND: Cell<Option<Kind>> = const { Cell::new(None) };
}

/// While it lives, [`linear`] on this thread computes in another kind of number.
pub(super) struct Autocast(Option<Kind>);

impl Autocast {
    /// Computes in `kind`, or in the kind of the operands where `None`.
    pub(super) fn to(kind: Option<Kind>) -> Self {
        Self(KIND.replace(kind))
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        KIND.set(self.0);
    }
}

/// `x W^T + b`: `[.., input]` to `[.., output]`, in the kind that is in force.
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    Ok(match KIND.get() {
        None => x.f_linear(weight, Some(bias))?,
        Some(kind) => x.f_to_kind(kind)?.f_linear(&weight.f_to_kind(kind)?, Some(&bias.f_to_kind(kind)?))?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn products_are_bf16_while_the_guard_lives_and_gradients_f32() {
        let x = Tensor::from_slice(&[1.0f32, 1.0 + 1.0 / 512.0]).view([1, 2]);
        let weight = Tensor::from_slice(&[1.0f32, 1.0]).view([1, 2]).set_requires_grad(true);
        let bias = Tensor::zeros([1], (Kind::Float, tch::Device::Cpu));
        {
            let _outer = Autocast::to(Some(Kind::BFloat16));
            let y = linear(&x, &weight, &bias).unwrap();
            assert_eq!(y.kind(), Kind::BFloat16);
            // bf16 has 8 bits: the 512th is lost.
            assert_eq!(y.double_value(&[0, 0]), 2.0);
            {
                let _inner = Autocast::to(None);
                assert_eq!(linear(&x, &weight, &bias).unwrap().kind(), Kind::Float);
            }
            assert_eq!(linear(&x, &weight, &bias).unwrap().kind(), Kind::BFloat16);
            y.sum(Kind::Float).backward();
        }
        assert_eq!(linear(&x, &weight, &bias).unwrap().double_value(&[0, 0]), 2.0 + 1.0 / 512.0);
        assert_eq!(weight.grad().kind(), Kind::Float);
    }
}
