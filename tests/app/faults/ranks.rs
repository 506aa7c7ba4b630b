//! Tests ranks in three situations: unknown callers on their port, a slow reward, and a signal before a preemption.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use omr_base::config::{SftConfig, to_yaml};
use omr_base_tests::wait::until;
use omr_model::rollout::wire;
use omr_runtime::ranks::Ranks;
use omr_runtime_tests::ranks::{by_rank, entries};
use omr_train_tests::training::tiny::{Outcome, run_sft, sft_config, training};
use serde_json::json;

pub const OMR: &str = env!("CARGO_BIN_EXE_omr");
const SECRET: &str = "of this test";

/// Returns a run of two gradient lanes and `steps` updates: its config file, its output folder, and a function that
/// computes the expected outcome.
pub fn job(dir: &Path, steps: u64) -> (PathBuf, PathBuf, impl FnOnce() -> Outcome + use<>) {
    let config =
        SftConfig { max_steps: Some(steps), training: training(|t| t.gradient_lanes = Some(2)), ..sft_config(dir) };
    let (file, whole) = (dir.join("sft.yaml"), dir.join("whole"));
    fs::write(&file, to_yaml(&config).unwrap()).unwrap();
    (file, dir.join("out"), move || run_sft(&whole, &config, 1, &[]))
}

pub fn sft(file: &Path, out: &Path) -> Command {
    let mut command = Command::new(OMR);
    command.env("CUDA_VISIBLE_DEVICES", "").args(["--threads", "1", "sft"]).arg(file).arg("--out").arg(out);
    command.arg("dist.timeout_s=60").stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Starts rank `rank` of two as a launcher does. The ranks meet at `port`.
pub fn launched(command: &mut Command, rank: &str, port: u16) -> Child {
    let port = (port - 1).to_string();
    command.envs([("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")]);
    command.env("MASTER_PORT", port).spawn().unwrap()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Asserts that both processes end successfully.
fn well(ranks: [Child; 2]) {
    for rank in ranks {
        let output = rank.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Returns the handshake proof that a caller with `secret` sends for a `nonce`. `does` is the role of the caller in the
/// handshake.
fn proof(secret: &str, nonce: &[u8], does: &[u8]) -> Vec<u8> {
    let key = blake3::derive_key("omr: what ranks of a run prove to each other", secret.as_bytes());
    [&[7; 32][..], blake3::keyed_hash(&key, &[nonce, &[7; 32], does].concat()).as_bytes()].concat()
}

/// Data that an unknown caller may have: the nonce that it received, an earlier nonce, and the program's name and hash.
struct Known {
    nonce: Vec<u8>,
    stale: [u8; 32],
    program: String,
}

impl Known {
    /// Returns the message that rank 1 of this program, or of another `program`, sends after it is accepted.
    fn greeting(&self, program: Option<&str>) -> Vec<u8> {
        let member = json!({"host": "stranger", "pid": 1, "address": "127.0.0.1:1"});
        let program = program.unwrap_or(&self.program);
        let text = json!({"greeting":
            {"program": program, "run": "", "round": 0, "size": 2, "rank": 1, "member": member}})
        .to_string();
        [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Manner {
    AtOnce,
    ByteByByte,
    HalfClosed,
    Closed,
}

/// The way in which an unknown caller behaves, and the bytes that it sends.
type Stranger = (Manner, fn(&Known) -> Vec<u8>);

const STRANGERS: [Stranger; 20] = {
    use Manner::*;
    [
        (Closed, |_| Vec::new()),
        (HalfClosed, |_| Vec::new()),
        (AtOnce, |_| b"GET / HTTP/1.1\r\nHost: rank\r\nUser-Agent: a text longer than a proof\r\n\r\n".to_vec()),
        (AtOnce, |_| [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[9; 506]].concat()),
        (HalfClosed, |_| b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()),
        (AtOnce, |_| vec![0xff; 64]),
        (AtOnce, |_| vec![0; 64]),
        (AtOnce, |_| vec![0xa5; 1 << 20]),
        (ByteByByte, |_| [&[0, 0, 16, 0][..], &[1; 1000]].concat()),
        (AtOnce, |known| known.greeting(None)),
        (AtOnce, |known| known.greeting(Some("evil"))),
        (ByteByByte, |known| [known.greeting(None), known.greeting(None)].concat()),
        (AtOnce, |known| [proof("another", &known.nonce, b"calls"), known.greeting(None)].concat()),
        // Two replayed proofs, the received nonce sent back as a proof, and a proof for the other role.
        (AtOnce, |known| [proof(SECRET, &known.stale, b"calls"), known.greeting(None)].concat()),
        (HalfClosed, |known| proof(SECRET, &known.stale, b"calls")),
        (AtOnce, |known| [&known.nonce[..], &known.nonce].concat()),
        (AtOnce, |known| [proof(SECRET, &known.nonce, b"accepts"), known.greeting(None)].concat()),
        // Parts of a correct message.
        (AtOnce, |known| proof(SECRET, &known.nonce, b"calls")[..63].to_vec()),
        (HalfClosed, |known| proof(SECRET, &known.nonce, b"calls")[..40].to_vec()),
        (Closed, |known| proof(SECRET, &known.nonce, b"calls")[..32].to_vec()),
    ]
};

/// Connects as an unknown caller and sends its bytes, until the connection is closed or the run is `over`. Returns all
/// received bytes.
fn call(
    mut stream: TcpStream,
    (manner, says): (Manner, fn(&Known) -> Vec<u8>),
    mut known: Known,
    over: &AtomicBool,
    spoken: &AtomicUsize,
) -> Vec<u8> {
    let mut reply = vec![0; 32];
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.read_exact(&mut reply).unwrap();
    known.nonce.clone_from(&reply);
    spoken.fetch_add(1, Ordering::Relaxed);
    let pause = if manner == Manner::ByteByByte { 20 } else { 0 };
    let words = says(&known);
    for part in words.chunks(if pause > 0 { 1 } else { usize::MAX }) {
        // Stops if the run is over or rank 0 has closed the connection.
        if over.load(Ordering::Relaxed) || stream.write_all(part).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(pause));
    }
    match manner {
        Manner::Closed => return reply,
        Manner::HalfClosed => drop(stream.shutdown(Shutdown::Write)),
        _ => {}
    }
    // Rank 0 closes the connection or exits.
    let _ = stream.read_to_end(&mut reply);
    reply
}

#[test]
fn strangers_neither_end_nor_delay_a_run_and_learn_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out, whole) = job(dir.path(), 3);
    let hash = &blake3::hash(&fs::read(OMR).unwrap()).to_hex()[..16];
    let port = free_port();
    let rank = |rank| {
        let mut command = sft(&file, &out);
        launched(command.env("OMR_RUN_SECRET", SECRET), rank, port)
    };
    let first = rank("0");
    let connect = || TcpStream::connect(("127.0.0.1", port));
    until("rank 0 listens", || connect().is_ok());
    let mut stale = [0; 32];
    connect().unwrap().read_exact(&mut stale).unwrap();
    // Forty silent connections stay open all the time.
    let silent: (Manner, fn(&Known) -> Vec<u8>) = (Manner::AtOnce, |_| Vec::new());
    let kinds: Vec<_> = STRANGERS.into_iter().chain(std::iter::repeat_n(silent, 40)).collect();
    let (over, spoken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let replies: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let (over, spoken, program) = (&over, &spoken, format!("omr {} {hash}", env!("CARGO_PKG_VERSION")));
        let known = || Known { nonce: Vec::new(), stale, program: program.clone() };
        let calls = kinds.iter().map(|kind| (connect().unwrap(), *kind, known()));
        let calls: Vec<_> = calls.collect();
        let threads =
            calls.into_iter().map(|(stream, kind, known)| scope.spawn(move || call(stream, kind, known, over, spoken)));
        let threads: Vec<_> = threads.collect();
        let whole = whole();
        until("all strangers speak", || spoken.load(Ordering::Relaxed) == kinds.len());
        well([first, rank("1")]);
        over.store(true, Ordering::Relaxed);
        whole.assert_same(&Outcome::of(&out), "among strangers");
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for reply in &replies {
        let text = String::from_utf8_lossy(reply);
        assert!(!["omr", hash, "token", "expected"].iter().any(|word| text.contains(word)), "{text}");
        assert_eq!(reply.len(), 32, "a nonce and nothing else: {text}");
    }
    println!("{} strangers, 32 bytes each", replies.len());
}

#[test]
fn a_reward_that_takes_ten_times_the_deadline_is_waited_for() {
    let mut entries = entries(2);
    entries.iter_mut().for_each(|entry| entry.config.timeout_s = 0.2);
    let gathered = by_rank(entries, |tcp| {
        let mut tcp = tcp.unwrap();
        if tcp.rank() == 1 {
            std::thread::sleep(Duration::from_secs(2));
        }
        wire::gathered(&mut tcp, Ok(Vec::new()), 0).and_then(|_| tcp.leave(Ok(())))
    });
    gathered.into_iter().for_each(|done| done.unwrap());
}

/// Tests SIGUSR1, which Slurm sends before a preemption, on a run with `--gpus`. The run is then continued by ranks
/// from a launcher, with the secret in the run directory.
#[test]
fn sigusr1_saves_and_the_next_start_has_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out, whole) = job(dir.path(), 20);
    let started = sft(&file, &out).args(["--gpus", "2"]).spawn().unwrap();
    let metrics = out.join("metrics.jsonl");
    until("a step is done", || fs::metadata(&metrics).is_ok_and(|file| file.len() > 0));
    assert!(Command::new("kill").args(["-USR1", &started.id().to_string()]).status().unwrap().success());
    let output = started.wait_with_output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{printed}");
    assert!(printed.contains("checkpoint of step"), "{printed}");
    let steps = fs::read_to_string(&metrics).unwrap().lines().count();
    assert_eq!(fs::read_to_string(out.join("latest")).unwrap(), format!("global_step_{steps}\n"));

    let (port, secret) = (free_port(), out.join(".secret"));
    let first = launched(&mut sft(&file, &out), "0", port);
    until("rank 0 makes the secret", || secret.exists());
    assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
    let second = launched(&mut sft(&file, &out), "1", port);
    let whole = whole();
    well([first, second]);
    assert!(!secret.exists());
    whole.assert_same(&Outcome::of(&out), "stopped by SIGUSR1");
}
