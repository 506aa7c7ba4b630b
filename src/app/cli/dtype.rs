//! The data type that `dtype: auto` means on this device.

use std::path::Path;

use super::Context;
use super::context::requested_isa;
use omr_base::config::Dtype;
use omr_model::nn::ModelConfig;
use omr_runtime::device::Isa;
use omr_runtime::tensor::DType;

impl Context {
    /// Resolves `dtype` for this device with [`DType::of`], as the value that a run records in its config. On a CPU with
    /// units for bf16 products, `auto` is bf16 if the weights in the directory `model` are stored so; a message says it.
    pub fn dtype(&self, dtype: Dtype, model: Option<&Path>) -> Dtype {
        let has_units = || requested_isa().is_ok_and(|isa| isa == Isa::Amx || isa.has_bf16_dot());
        let stored = || model.and_then(|dir| ModelConfig::load(&dir.join("config.json")).ok());
        match (dtype, DType::of(dtype, self.kind())) {
            (Dtype::Auto, DType::F32) if has_units() && stored().is_some_and(|config| config.is_stored_as_bf16()) => {
                self.say(
                    "dtype: auto is bf16, as the weights are stored and this CPU computes fast; dtype=f32 is exact",
                );
                Dtype::Bf16
            }
            (_, DType::Bf16) => Dtype::Bf16,
            _ => Dtype::F32,
        }
    }
}
