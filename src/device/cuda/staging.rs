//! Uploads from ordinary memory through a ring of pinned pieces: the caller's bytes are free on return and nothing
//! waits unless the ring is full. (The driver's own path for pageable memory may read the source late where the host
//! shares its page tables with the card.)

use cudarc::driver::result::{self, event};
use cudarc::driver::{DriverError, sys};

/// Pieces of the ring. A step uploads fewer small tables than this, so it waits for none of its own.
const PIECES: usize = 64;

/// Bytes of a piece: large enough that the bus, not the calls, bounds the upload of weights.
const PIECE: usize = 256 << 10;

/// A ring of pinned pieces, taken on first use.
pub struct Staging {
    start: *mut u8,
    /// Of each piece: behind the copy that reads it.
    read: Vec<sys::CUevent>,
    next: usize,
}

impl Staging {
    /// A ring that has taken nothing yet.
    pub fn new() -> Staging {
        Staging { start: std::ptr::null_mut(), read: Vec::new(), next: 0 }
    }

    /// Queues a copy of `from` to `to` on `stream`; the context is current. Waits while all pieces are in use.
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
            // SAFETY: the piece is inside the ring, no copy reads it any more (waited for above, or never used), and
            // it is not written again before the event recorded behind this copy.
            unsafe {
                let at = self.start.add(piece * PIECE);
                std::ptr::copy_nonoverlapping(part.as_ptr(), at, part.len());
                sys::cuMemcpyHtoDAsync_v2(to + (index * PIECE) as u64, at.cast(), part.len(), stream).result()?;
                event::record(self.read[piece], stream)?;
            }
        }
        Ok(())
    }

    /// Gives the ring back.
    ///
    /// # Safety
    /// The context is current and no copy of the ring is under way.
    pub unsafe fn free(&mut self) {
        for read in self.read.drain(..) {
            // SAFETY: made by `upload`, destroyed once.
            let _ = unsafe { event::destroy(read) };
        }
        if !self.start.is_null() {
            // SAFETY: taken by `upload`, freed once: the pointer is cleared.
            let _ = unsafe { result::free_host(self.start.cast()) };
            self.start = std::ptr::null_mut();
        }
    }
}
