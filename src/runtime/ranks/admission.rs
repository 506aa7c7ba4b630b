//! Accepts connections from callers that prove knowledge of the run secret. Each caller has its own thread, so a slow
//! caller does not delay the others.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::secret::Key;
use super::wire::{Message, Until};
use omr_base::error::{Error, Result};

/// Pause between two checks of a condition that is waited for.
pub const POLL: Duration = Duration::from_millis(20);

/// Time limit for a caller's proof and first message together.
pub const WORD: Duration = Duration::from_secs(5);

/// Maximum number of callers that are served at the same time. Further callers wait until one of these has sent its
/// message or is closed.
const AT_ONCE: usize = 128;

/// A caller that has proved knowledge of the run secret.
pub struct Caller {
    /// The connection to the caller.
    pub stream: TcpStream,
    /// Address of the caller.
    pub from: SocketAddr,
    /// First message of the caller.
    pub word: Message,
}

/// A listener that accepts callers. When it is dropped, later callers are closed without an answer.
pub struct Admission {
    callers: Receiver<Caller>,
    unproven: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Admission {
    /// Starts to accept the callers that connect to `listener` and prove knowledge of the secret of `key`.
    pub fn open(listener: TcpListener, key: Key) -> Result<Admission> {
        let failed = |e: io::Error| Error::Failed(format!("listening for connections: {e}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let (sender, callers) = mpsc::channel();
        let (unproven, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over, open) = (unproven.clone(), closed.clone(), Arc::new(()));
        let serve = move || {
            while !over.load(Ordering::Relaxed) {
                let is_full = Arc::strong_count(&open) > AT_ONCE;
                let Some((stream, from)) = (!is_full).then(|| listener.accept().ok()).flatten() else {
                    std::thread::sleep(POLL);
                    continue;
                };
                let (sender, counted, key, open) = (sender.clone(), counted.clone(), key.clone(), open.clone());
                let hear = move || {
                    match read_message(&stream, &key) {
                        Ok(word) => drop(sender.send(Caller { stream, from, word })),
                        Err(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    }
                    drop(open);
                };
                // If the system cannot create a thread, the connection is closed, and the caller may connect again.
                let _ = std::thread::Builder::new().name("caller".to_owned()).spawn(hear);
            }
        };
        std::thread::Builder::new().name("callers".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Admission { callers, unproven, closed })
    }

    /// Waits up to [`POLL`] for the next caller.
    pub fn next(&self) -> Option<Caller> {
        self.callers.recv_timeout(POLL).ok()
    }

    /// Returns the number of callers that did not prove knowledge of the secret.
    pub fn unproven(&self) -> usize {
        self.unproven.load(Ordering::Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// Returns a caller's first message after the caller has proved knowledge of the secret.
fn read_message(stream: &TcpStream, key: &Key) -> io::Result<Message> {
    let deadline = Instant::now() + WORD;
    prepare(stream)?;
    key.accept(stream, deadline)?;
    Message::receive(Until { stream, deadline })
}

/// Configures a connection for use between ranks: writes are sent without delay, and reads block.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(None)
}
