//! One kernel of a card: what it takes, what is refused, and the call that launches it.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute};
use cudarc::driver::{DriverError, result};

use crate::device::driver::{EncodedMap, Launch, Properties, TensorMap};

/// Largest cluster every card of compute capability 9.0 takes (CUDA programming guide, thread block clusters).
const MAX_CLUSTER: u32 = 8;

/// A kernel, loaded and ready to launch.
pub struct Function {
    /// Its name.
    pub name: &'static str,
    handle: sys::CUfunction,
    /// Most threads it was compiled for.
    threads: u32,
    /// Bytes of its `Args`, as the driver reads them from the image.
    args: usize,
}

impl Function {
    /// The loaded kernel `handle`, allowed all of the `most` bytes of shared memory a CTA can have. Errors with the
    /// driver call that failed.
    ///
    /// # Safety
    /// `handle` is a function of a module that stays loaded, of the current context.
    pub unsafe fn new(
        name: &'static str,
        handle: sys::CUfunction,
        most: usize,
    ) -> Result<Function, (&'static str, DriverError)> {
        let attribute = |which| {
            // SAFETY: upheld by the caller.
            let value = unsafe { result::function::get_function_attribute(handle, which) };
            value.map_err(|e| ("cuFuncGetAttribute", e))
        };
        let threads = attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)? as u32;
        let dynamic = most as i32 - attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let (mut offset, mut args) = (0, 0);
        // SAFETY: as above; writes two integers. Every kernel has exactly one parameter, its `Args` by value.
        let code = unsafe { sys::cuFuncGetParamInfo(handle, 0, &mut offset, &mut args) };
        code.result().map_err(|e| ("cuFuncGetParamInfo", e))?;
        let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: as above.
        let set = unsafe { result::function::set_function_attribute(handle, which, dynamic) };
        set.map_err(|e| ("cuFuncSetAttribute", e))?;
        Ok(Function { name, handle, threads, args })
    }

    /// What is wrong with a launch, in words the driver does not have.
    pub fn refusal(&self, launch: &Launch, params: usize, device: &Properties) -> Option<String> {
        let [x, y, z] = launch.grid;
        let most = device.shared_memory_per_block;
        if params != self.args {
            return Some(format!("{params} bytes of parameters, its Args have {}", self.args));
        }
        if launch.block == 0 || launch.block > self.threads {
            return Some(format!("{} threads a CTA, it is compiled for {}", launch.block, self.threads));
        }
        if launch.smem as usize > most {
            return Some(format!("{} bytes of shared memory, a CTA can have {most}", launch.smem));
        }
        if launch.cluster > 1 && device.compute_capability.0 < 9 {
            return Some(format!("a cluster of {} CTAs below compute capability 9.0", launch.cluster));
        }
        if launch.cluster == 0 || launch.cluster > MAX_CLUSTER || !x.is_multiple_of(launch.cluster) {
            return Some(format!("a cluster of {} CTAs in a grid of {x} x {y} x {z}", launch.cluster));
        }
        None
    }

    /// Queues a launch that was not refused.
    ///
    /// # Safety
    /// `stream` is live and of the current context, and the addresses in `params` are good for what the kernel does.
    pub unsafe fn launch(&self, stream: sys::CUstream, launch: &Launch, params: &[u8]) -> sys::CUresult {
        assert_eq!(params.len(), self.args, "{}: bytes of parameters", self.name);
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { pad: [0; 64] },
        };
        cluster.value.clusterDim.x = launch.cluster;
        cluster.value.clusterDim.y = 1;
        cluster.value.clusterDim.z = 1;
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.smem,
            hStream: stream,
            attrs: &mut cluster,
            numAttrs: u32::from(launch.cluster > 1),
        };
        let mut args: [*mut c_void; 1] = [params.as_ptr().cast_mut().cast()];
        // SAFETY: the one parameter is as long as the kernel's (checked), and the driver copies it before it returns;
        // the rest is upheld by the caller.
        unsafe { sys::cuLaunchKernelEx(&config, self.handle, args.as_mut_ptr(), ptr::null_mut()) }
    }
}

/// A tensor map whose rules were checked, as the driver encodes it.
pub fn encode(map: &TensorMap) -> (sys::CUresult, EncodedMap) {
    let data = match map.element {
        2 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        _ => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    };
    let swizzle = match map.swizzle {
        32 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B,
        64 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B,
        128 => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
        _ => sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE,
    };
    // Of 128 bytes like the driver's own struct, on a boundary of 64, which it asks for.
    let mut encoded = EncodedMap([0; 16]);
    let rank = map.dims.len();
    assert_eq!((map.strides.len() + 1, map.box_dims.len()), (rank, rank), "an unchecked tensor map");
    let steps = vec![1_u32; rank];
    // SAFETY: the arrays have as many entries as the rank says, strides one fewer; the address is only written down.
    let code = unsafe {
        sys::cuTensorMapEncodeTiled(
            (&raw mut encoded).cast::<sys::CUtensorMap>(),
            data,
            rank as u32,
            map.address as *mut c_void,
            map.dims.as_ptr(),
            map.strides.as_ptr(),
            map.box_dims.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    (code, encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_the_card_could_not_run_is_refused_in_words() {
        let function = Function { name: "gemm", handle: ptr::null_mut(), threads: 256, args: 48 };
        let device = |major| Properties {
            name: "card".into(),
            compute_capability: (major, 0),
            multiprocessors: 132,
            memory: 1 << 30,
            shared_memory_per_block: 232_448,
            driver: "580".into(),
        };
        let good = Launch { grid: [4, 1, 1], block: 256, cluster: 2, smem: 232_448 };
        let said = |launch: Launch, params, major| function.refusal(&launch, params, &device(major));
        assert_eq!(said(good, 48, 9), None);
        assert_eq!(said(Launch { cluster: 1, ..good }, 48, 8), None);
        for (launch, params, major, word) in [
            (good, 40, 9, "40 bytes of parameters, its Args have 48"),
            (Launch { block: 512, ..good }, 48, 9, "512 threads a CTA, it is compiled for 256"),
            (Launch { block: 0, ..good }, 48, 9, "0 threads"),
            (Launch { smem: 232_449, ..good }, 48, 9, "232449 bytes of shared memory, a CTA can have 232448"),
            (good, 48, 8, "a cluster of 2 CTAs below compute capability 9.0"),
            (Launch { cluster: 3, ..good }, 48, 9, "a cluster of 3 CTAs in a grid of 4 x 1 x 1"),
            (Launch { cluster: 0, ..good }, 48, 9, "a cluster of 0"),
            (Launch { grid: [16, 1, 1], cluster: 16, ..good }, 48, 9, "a cluster of 16"),
        ] {
            let found = said(launch, params, major).unwrap();
            assert!(found.contains(word), "{found}");
        }
    }
}
