//! One loaded kernel: its limits, the checks before a launch, and the call that launches it.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute};
use cudarc::driver::{DriverError, result};

use crate::device::driver::{EncodedMap, Launch, Properties, TensorMap};
use crate::device::images::{Arch, Images};
use crate::device::limits::Declared;

/// Threads of the kernels whose warpgroups exchange registers (`setmaxnreg`): one that copies, two that compute.
const EXCHANGING_THREADS: u32 = 384;
/// Registers per thread that these kernels need at launch: the copying warpgroup keeps 40 and each other one gets 232,
/// which is exactly 3 x 168. With fewer, a warpgroup would wait for registers forever. `tools/build-ptx` checks the same.
const EXCHANGING_REGISTERS: i32 = 168;

/// A kernel that is loaded and ready to launch.
pub struct Function {
    /// Kernel name.
    pub name: &'static str,
    handle: sys::CUfunction,
    /// Maximum threads per CTA that the kernel is compiled for.
    threads: u32,
    /// Size of the kernel's `Args` in bytes, as reported by the driver or, before CUDA 12.4, by the table of kernels.
    args: usize,
    /// Registers per thread at launch.
    registers: i32,
    /// True if the kernel's wgmma wait for each other as the driver has compiled them.
    is_serialized: bool,
}

/// `cuFuncGetParamInfo`, which drivers have from CUDA 12.4 on.
type ParamInfo = unsafe extern "C" fn(sys::CUfunction, usize, *mut usize, *mut usize) -> sys::CUresult;

impl Function {
    /// Wraps the loaded kernel `handle`, made of `images` for `arch`, and allows it all of the shared memory that a CTA can
    /// have on `gpu`. Errors with the name of the driver call that failed.
    ///
    /// # Safety
    /// `handle` must be a function of the current context, in a module that stays loaded.
    pub unsafe fn new(
        name: &'static str,
        handle: sys::CUfunction,
        gpu: &Properties,
        images: &Images,
        arch: Arch,
    ) -> Result<Function, (&'static str, DriverError)> {
        let attribute = |which| {
            // SAFETY: guaranteed by the caller.
            let value = unsafe { result::function::get_function_attribute(handle, which) };
            value.map_err(|e| ("cuFuncGetAttribute", e))
        };
        let threads = attribute(Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)? as u32;
        let registers = attribute(Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?;
        let dynamic = gpu.shared_memory_per_block as i32 - attribute(Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        let (mut offset, mut args) = (0, images.kernel(name, arch).map_or(0, |built| built.args as usize));
        // SAFETY: the library is loaded for the life of the process, and the symbol has this type (cuda.h).
        if let Ok(param_info) = unsafe { sys::culib().get::<ParamInfo>(b"cuFuncGetParamInfo") } {
            // SAFETY: guaranteed by the caller; writes two integers. Every kernel has exactly one parameter, its `Args`
            // by value.
            let code = unsafe { param_info(handle, 0, &mut offset, &mut args) };
            code.result().map_err(|e| ("cuFuncGetParamInfo", e))?;
        }
        let which = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: guaranteed by the caller.
        let set = unsafe { result::function::set_function_attribute(handle, which, dynamic) };
        set.map_err(|e| ("cuFuncSetAttribute", e))?;
        let is_serialized = arch == Arch::Sm90a && images.is_serialized(name, gpu.cuda);
        Ok(Function { name, handle, threads, args, registers, is_serialized })
    }

    /// Returns an error text if the driver has compiled the kernel with a number of registers with which it would hang on
    /// `device`. Below compute capability 9.0 the body of such a kernel is empty.
    pub fn wrong_registers(&self, device: &Properties) -> Option<String> {
        let Function { name, threads, registers, .. } = *self;
        let exchanges = threads == EXCHANGING_THREADS && device.compute_capability == (9, 0);
        (exchanges && registers != EXCHANGING_REGISTERS).then(|| {
            format!(
                "{name} is compiled for {registers} registers per thread, but it needs exactly {EXCHANGING_REGISTERS}"
            )
        })
    }

    /// Returns an error text if the kernel must not run on `gpu` as it was compiled: it would hang, or its wgmma are
    /// serialised.
    pub fn compile_fault(&self, gpu: &Properties) -> Option<String> {
        let serialized = format!("the compiler of the driver {} serialises the wgmma of {}", gpu.driver, self.name);
        self.wrong_registers(gpu).or(self.is_serialized.then_some(serialized))
    }

    /// Returns what the check of a launch needs.
    pub fn declared(&self) -> Declared<'static> {
        let Function { name, threads, args, registers, .. } = *self;
        Declared { name, args, threads, registers: registers as u32 }
    }

    /// Queues a launch that `limits::check` has accepted.
    ///
    /// # Safety
    /// `stream` must be live and of the current context, and the addresses in `params` must be valid for what the
    /// kernel does.
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
        // SAFETY: the single parameter has the length that the kernel expects (checked), and the driver copies it
        // before it returns. The caller guarantees the rest.
        unsafe { sys::cuLaunchKernelEx(&config, self.handle, args.as_mut_ptr(), ptr::null_mut()) }
    }
}

/// Encodes a tensor map, which was checked before, in the driver's format.
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
    // 128 bytes with 64-byte alignment, as the driver's struct requires.
    let mut encoded = EncodedMap([0; 16]);
    let rank = map.dims.len();
    assert_eq!((map.strides.len() + 1, map.box_dims.len()), (rank, rank), "an unchecked tensor map");
    let steps = vec![1_u32; rank];
    // SAFETY: the arrays have `rank` entries, strides one fewer. The address is stored but not accessed.
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
