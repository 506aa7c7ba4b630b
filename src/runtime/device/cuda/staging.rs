//! Uploads from pageable memory through a ring of pinned buffers. The caller may reuse its bytes on return, and the
//! call waits only if the ring is full. (The driver's own path for pageable memory may read the source later if the
//! host shares its page tables with the GPU.)

use cudarc::driver::result::{self, event};
use cudarc::driver::{DriverError, sys};

/// Number of buffers in the ring. A step uploads fewer small tables than this, so it never waits for its own uploads.
const PIECES: usize = 64;

/// Bytes of one buffer. It is large enough that the bus, not the number of calls, limits the upload of weights.
const PIECE: usize = 256 << 10;

/// A ring of pinned buffers, allocated on first use.
pub struct Staging {
    start: *mut u8,
    /// Event per buffer, recorded after the copy that reads the buffer.
    read: Vec<sys::CUevent>,
    next: usize,
}

impl Staging {
    /// Creates a ring without allocating memory.
    pub fn new() -> Staging {
        Staging { start: std::ptr::null_mut(), read: Vec::new(), next: 0 }
    }

    /// Queues a copy of `from` to `to` on `stream`. The context must be current. Waits while all buffers are in use.
    pub fn upload(&mut self, stream: sys::CUstream, to: u64, from: &[u8]) -> Result<(), DriverError> {
        if self.start.is_null() {
            // SAFETY: freed once, in `free`.
            self.start = unsafe { result::malloc_host(PIECES * PIECE, 0) }?.cast();
        }
        for (index, part) in from.chunks(PIECE).enumerate() {
            let piece = self.next % PIECES;
            self.next += 1;
            if let Some(read) = self.read.get(piece) {
                // SAFETY: the event lives as long as the ring.
                unsafe { event::synchronize(*read) }?;
            } else {
                self.read.push(event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?);
            }
            // SAFETY: the buffer is inside the ring. No copy reads it any more (the event above was waited for, or the
            // buffer was never used), and it is not written again before the event that is recorded after this copy.
            unsafe {
                let at = self.start.add(piece * PIECE);
                std::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                sys::cuMemcpyAsync(to + (index * PIECE) as u64, at as u64, part.len(), stream).result()?;
                event::record(self.read[piece], stream)?;
            }
        }
        Ok(())
    }

    /// Frees the ring.
    ///
    /// # Safety
    /// The context must be current, and no copy from the ring may be running.
    pub unsafe fn free(&mut self) {
        for read in self.read.drain(..) {
            // SAFETY: made by `upload`, destroyed once.
            let _ = unsafe { event::destroy(read) };
        }
        if !self.start.is_null() {
            // SAFETY: allocated by `upload`, freed once: the pointer is cleared below.
            let _ = unsafe { result::free_host(self.start.cast()) };
            self.start = std::ptr::null_mut();
        }
    }
}
