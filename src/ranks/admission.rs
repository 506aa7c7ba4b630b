//! Who may speak to this rank: callers that prove the run secret. Each has a thread, so that none holds up another.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use super::secret::Key;
use super::wire::{Message, Until};
use crate::error::{Error, Result};

/// Between two looks at what is waited for.
pub const POLL: Duration = Duration::from_millis(20);

/// What a caller is given for its proof and its first message, together.
pub const WORD: Duration = Duration::from_secs(5);

/// Callers that are heard at once; others wait until one of them has spoken or is closed.
const AT_ONCE: usize = 128;

/// A caller that knows the run secret.
pub struct Caller {
    /// The connection to it.
    pub stream: TcpStream,
    /// Where it calls from.
    pub from: SocketAddr,
    /// What it said first.
    pub word: Message,
}

/// A listener that lets callers in; they are closed unheard once it is dropped.
pub struct Admission {
    callers: Receiver<Caller>,
    strangers: Arc<AtomicUsize>,
    closed: Arc<AtomicBool>,
}

impl Admission {
    /// Lets in those who come to `listener` and prove that they know the secret of `key`.
    pub fn open(listener: TcpListener, key: Key) -> Result<Admission> {
        let failed = |e: io::Error| Error::Failed(format!("listening: {e}"));
        listener.set_nonblocking(true).map_err(failed)?;
        let (sender, callers) = mpsc::channel();
        let (strangers, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, over, open) = (strangers.clone(), closed.clone(), Arc::new(()));
        let serve = move || {
            while !over.load(Ordering::Relaxed) {
                let is_full = Arc::strong_count(&open) > AT_ONCE;
                let Some((stream, from)) = (!is_full).then(|| listener.accept().ok()).flatten() else {
                    std::thread::sleep(POLL);
                    continue;
                };
                let (sender, counted, key, open) = (sender.clone(), counted.clone(), key.clone(), open.clone());
                let hear = move || {
                    match heard(&stream, &key) {
                        Ok(word) => drop(sender.send(Caller { stream, from, word })),
                        Err(_) => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    }
                    drop(open);
                };
                // Where the system has no thread left the caller is closed, and may come again.
                let _ = std::thread::Builder::new().name("caller".to_owned()).spawn(hear);
            }
        };
        std::thread::Builder::new().name("callers".to_owned()).spawn(serve).map_err(failed)?;
        Ok(Admission { callers, strangers, closed })
    }

    /// The next caller, waited for a moment.
    pub fn next(&self) -> Option<Caller> {
        self.callers.recv_timeout(POLL).ok()
    }

    /// Callers that did not prove that they know the secret.
    pub fn strangers(&self) -> usize {
        self.strangers.load(Ordering::Relaxed)
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

/// A caller's first message, once it has proved that it knows the secret.
fn heard(stream: &TcpStream, key: &Key) -> io::Result<Message> {
    let deadline = Instant::now() + WORD;
    prepare(stream)?;
    key.accept(stream, deadline)?;
    Message::receive(Until { stream, deadline })
}

/// A connection as ranks speak over it: what is written is sent at once, what is read is waited for.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(None)
}
