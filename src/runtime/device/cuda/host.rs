//! Page-locked memory of the host for the offloaded optimizer state, tens of gigabytes.

use cudarc::driver::{DriverError, sys};
use memmap2::{MmapMut, MmapOptions};
use rayon::prelude::*;

use omr_base::error::Error;

/// Bytes of a page, and of the pages that a thread makes at a time.
const PAGE: usize = 4096;
const PART: usize = 64 << 20;

/// Maps `bytes` of zero-filled memory, at least one, and makes all of its pages. The system makes and zeroes a page when
/// it is first written, which several threads do at the same time. The driver's own allocation makes and pins the pages
/// in one call, with one thread. After this function, the driver only pins them.
pub fn zeroed(bytes: usize) -> omr_base::error::Result<MmapMut> {
    let mapped = MmapOptions::new().len(bytes).map_anon();
    let mut memory = mapped.map_err(|e| Error::Failed(format!("mapping {bytes} bytes of the host: {e}")))?;
    // There are fewer huge pages to make and to pin. If the system refuses them, only time is lost.
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage).ok();
    memory.par_chunks_mut(PART).for_each(|part| part.iter_mut().step_by(PAGE).for_each(|byte| *byte = 0));
    Ok(memory)
}

/// Pins memory and returns its address on the GPU.
///
/// # Safety
/// The context must be current, and the memory must be unpinned before it is unmapped.
pub unsafe fn pin(memory: &mut MmapMut) -> Result<u64, DriverError> {
    let (mut address, start) = (0, memory.as_mut_ptr().cast());
    let flags = sys::CU_MEMHOSTREGISTER_PORTABLE | sys::CU_MEMHOSTREGISTER_DEVICEMAP;
    // SAFETY: the caller guarantees that these bytes stay mapped while they are pinned.
    unsafe { sys::cuMemHostRegister_v2(start, memory.len(), flags) }.result()?;
    // SAFETY: the memory is pinned, and the context maps it into the GPU's addresses.
    unsafe { sys::cuMemHostGetDevicePointer_v2(&mut address, start, 0) }.result().map(|()| address)
}
