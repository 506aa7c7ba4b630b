//! Tests ranks with NCCL against a library that replaces it (`nccl.c`), on the emulator's memory. The tests check the
//! calls, their order and stream, the transferred data, and the behaviour when something fails, is lost or hangs. They
//! have not run on two GPUs.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use omr_base::error::{Error, Result};
use omr_base_tests::wait::until;
use omr_runtime::device::emu::{Completion, Emu, Options};
use omr_runtime::device::nccl::Library;
use omr_runtime::device::{Device, Driver, Kind, Plan, Region};
use omr_runtime::ranks::{Nccl, Ranks, Tcp};
use omr_runtime::tensor::{DType, Tensor};

use super::collectives::{all_gather, exchange, host_bytes};
use super::{Entry, by_rank, entries};

/// The replacement library in its own folder.
pub struct StandIn(tempfile::TempDir);

impl StandIn {
    /// Creates a library that fails as the script `play` describes.
    pub fn new(play: &str) -> StandIn {
        static BUILT: OnceLock<Vec<u8>> = OnceLock::new();
        let build = || {
            let folder = tempfile::tempdir().unwrap();
            let library = folder.path().join("libnccl.so.2");
            let source = omr_base_tests::root().join("tests/runtime/ranks/nccl.c");
            let flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"];
            let built = Command::new("cc").args(flags).arg(&library).arg(source).output().unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            std::fs::read(library).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("libnccl.so.2"), BUILT.get_or_init(build)).unwrap();
        std::fs::write(folder.path().join("play"), play).unwrap();
        StandIn(folder)
    }

    /// Returns the path of the library.
    pub fn path(&self) -> PathBuf {
        self.0.path().join("libnccl.so.2")
    }

    /// Returns the calls of a rank, in order.
    pub fn log(&self, rank: usize) -> Vec<String> {
        let text = std::fs::read_to_string(self.0.path().join(format!("log-{rank}"))).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn open(&self) -> Result<&'static Library> {
        Library::open(&[&self.path()], "the stand-in")
    }
}

fn emu() -> Emu {
    // Work is completed as late as a GPU may complete it.
    let options = Options { shadow: false, completion: Completion::Lazy, ..Options::default() };
    Emu::new(options).unwrap()
}

fn device() -> Device {
    Device::gpu(Box::new(emu()), Kind::Emu, &Plan::default().with(Region::Workspace, 32 << 20)).unwrap()
}

fn begin(tcp: Tcp, stand_in: &StandIn) -> Result<Nccl> {
    Nccl::start(tcp, || Ok((stand_in.open()?, Box::new(emu()) as Box<dyn Driver>)))
}

/// Runs `work` on all ranks with NCCL and ends the run. Returns the result of each rank.
fn all(entries: Vec<Entry>, stand_in: &StandIn, work: impl Fn(&mut Nccl) -> Result<()> + Sync) -> Vec<Result<()>> {
    by_rank(entries, |tcp| {
        let mut ranks = begin(tcp?, stand_in)?;
        match work(&mut ranks) {
            Ok(()) => ranks.leave(Ok(())),
            Err(error) => {
                let _ = ranks.leave(Err(&error));
                Err(error)
            }
        }
    })
}

fn zeros(dev: &mut Device, bytes: usize) -> Result<Tensor> {
    dev.zeros(Region::Workspace, DType::F32, &[bytes / 4])
}

/// Sends data from each of two ranks to the other.
fn small(ranks: &mut Nccl) -> Result<()> {
    let mut dev = device();
    let (own, other) = (ranks.rank(), 1 - ranks.rank());
    let mut sides = [vec![Vec::new(); 2], vec![Vec::new(); 2]];
    sides[0][other].push(dev.upload(Region::Workspace, &[own as f32 + 7.0; 100], &[100])?);
    sides[1][other].push(zeros(&mut dev, 400)?);
    dev.on_side_stream(|dev| ranks.exchange(dev, "pieces", &sides[0], &sides[1]))?;
    ranks.settle(&mut dev, "pieces")?;
    assert_eq!(dev.read::<f32>(sides[1][other][0])?, [other as f32 + 7.0; 100]);
    Ok(())
}

#[test]
fn bytes_arrive_as_by_tcp() {
    for (size, group) in [(1, None), (2, Some(4096)), (3, None), (5, Some(100_000))] {
        let stand_in = StandIn::new("");
        let done = by_rank(entries(size), |tcp| {
            let mut ranks = begin(tcp?, &stand_in)?;
            if let Some(bytes) = group {
                ranks = ranks.in_groups_of(bytes);
            }
            let mut dev = device();
            for _ in 0..2 {
                host_bytes(&mut ranks)?;
                exchange(&mut dev, &mut ranks)?;
                all_gather(&mut dev, &mut ranks)?;
            }
            ranks.leave(Ok(()))
        });
        assert!(done.iter().all(Result::is_ok), "{done:?}");
    }
}

#[test]
fn calls_are_grouped_in_order_on_the_stream_of_the_device() {
    let stand_in = StandIn::new("");
    let ends = by_rank(entries(2), |tcp| {
        let mut ranks = begin(tcp?, &stand_in)?.in_groups_of(1024);
        let mut dev = device();
        let mut sides = [vec![Vec::new(); 2], vec![Vec::new(); 2]];
        let own = ranks.rank();
        // Rank 1 receives three tensors, one of them empty. Rank 0 receives one, and each rank sends one to itself.
        for bytes in [3000, 0, 500] {
            sides[own][1 - own].push(zeros(&mut dev, bytes)?);
        }
        sides[1 - own][1 - own].push(zeros(&mut dev, 100)?);
        sides[0][own].push(dev.upload(Region::Workspace, &[3.0_f32; 50], &[50])?);
        sides[1][own].push(zeros(&mut dev, 200)?);
        ranks.exchange(&mut dev, "pieces", &sides[0], &sides[1])?;
        assert_eq!(dev.read::<f32>(sides[1][own][0])?, [3.0; 50]);
        ranks.leave(Ok(()))
    });
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    let expected = |rank: usize, long: [&str; 2], short: [&str; 2]| {
        let line = |[call, to]: [&str; 2], bytes: usize| format!("{call} {bytes} {to} {} on 0x1", 1 - rank);
        let mut lines = vec![format!("init {rank} of 2, layout 22200, at most 8 CTAs in clusters of 1")];
        let trial = |call: &str, to: &str| [0, 1].map(|peer| format!("{call} 256 {to} {peer} on 0x1"));
        lines.extend([trial("send", "to"), trial("recv", "from")].concat());
        lines.push("group of 4".to_owned());
        let mut group = |moves: &[String]| {
            lines.extend_from_slice(moves);
            lines.push(format!("group of {}", moves.len()));
        };
        let mut first = vec![line(long, 1024), line(short, 100)];
        if rank == 1 {
            first.reverse();
        }
        group(&first);
        group(&[line(long, 1024)]);
        group(&[line(long, 952), line(long, 72)]);
        group(&[line(long, 428)]);
        lines.extend(["finalize", "destroy"].map(str::to_owned));
        lines
    };
    let (send, recv) = (["send", "to"], ["recv", "from"]);
    assert_eq!(stand_in.log(0), expected(0, send, recv));
    assert_eq!(stand_in.log(1), expected(1, recv, send));
}

/// Asserts that every rank has an error with all of `parts`.
fn assert_errors(ends: &[Result<()>], parts: &[&str]) {
    for (rank, end) in ends.iter().enumerate() {
        let text = end.as_ref().unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "rank {rank}: {text}, not {parts:?}");
    }
}

#[test]
fn what_each_function_fails_of_is_said_by_all() {
    let of_the_communicator = ["ncclCommGetAsyncError", "ncclSend", "ncclRecv", "ncclGroupEnd", "ncclCommFinalize"];
    for function in of_the_communicator {
        let stand_in = StandIn::new(&format!("fail {function} 1 5\n"));
        let ends = all(entries(2), &stand_in, small);
        assert_errors(&ends, &["rank 1 (", &format!("{function}: NCCL's error 5: invalid usage (words of NCCL)")]);
        // The other rank aborts too, unless the failing call is the last one of the run.
        let first = usize::from(function == "ncclCommFinalize");
        for rank in first..2 {
            assert_eq!(stand_in.log(rank).last().unwrap(), "abort", "{function}, rank {rank}");
        }
    }
    for (function, rank) in
        [("ncclCommInitRankConfig", 1), ("ncclGetVersion", 0), ("ncclGetUniqueId", 0), ("ncclGroupStart", 0)]
    {
        let stand_in = StandIn::new(&format!("fail {function} {rank} 5\n"));
        let ends = all(entries(2), &stand_in, small);
        assert_errors(&ends, &[&format!("{function}: NCCL's error 5: invalid usage")]);
    }
    let stand_in = StandIn::new("fail ncclCommDestroy 1 5\n");
    let ends = all(entries(2), &stand_in, small);
    assert_errors(&ends, &["rank 1 (", "NCCL's end", "ncclCommDestroy: NCCL's error 5"]);
}

#[test]
fn an_error_that_comes_later_ends_all() {
    // An error that no other rank can have caused is reported at once. If a lost rank may be the cause, the rank first
    // waits for a report about it. Here, no such report comes.
    for (code, heartbeat) in [(1, 30.0), (6, 0.2)] {
        let stand_in = StandIn::new(&format!("async 1 {code} 1\n"));
        let mut entries = entries(2);
        entries.iter_mut().for_each(|entry| entry.config.heartbeat_s = heartbeat);
        let ends = all(entries, &stand_in, small);
        assert_errors(&ends, &["pieces: rank 1 (", &format!("ncclCommGetAsyncError: NCCL's error {code}: ")]);
        assert!((0..2).all(|rank| stand_in.log(rank).last().unwrap() == "abort"));
    }
}

#[test]
fn other_moves_than_another_rank_expects_are_found_before_they_begin() {
    let stand_in = StandIn::new("");
    let ends = all(entries(2), &stand_in, |ranks| {
        let mut dev = device();
        let bytes = if ranks.rank() == 0 { 400 } else { 800 };
        let owned = [(0, zeros(&mut dev, bytes)?)];
        ranks.all_gather(&mut dev, "weights", &owned)
    });
    assert_errors(&ends, &["weights: rank 0 (", "sends 400 bytes", "expects 800"]);
    let ends = all(entries(2), &stand_in, |ranks| match ranks.rank() {
        0 => ranks.all_gather(&mut device(), "weights", &[]),
        _ => ranks.gather("losses", &[]).map(drop),
    });
    assert_errors(&ends, &["\"losses\"", "\"weights\""]);
    let groups = stand_in.log(1).iter().filter(|line| line.starts_with("group")).count();
    assert_eq!(groups, 2, "who has found it has begun no move but the two starts'");
}

#[test]
fn ranks_of_two_versions_do_not_begin() {
    let [old, new] = [StandIn::new("version 22200\n"), StandIn::new("")];
    let ends = by_rank(entries(2), |tcp| {
        let tcp = tcp?;
        let stand_in = if tcp.rank() == 0 { &new } else { &old };
        begin(tcp, stand_in).map(drop)
    });
    assert_errors(&ends, &["NCCL's version of rank 1 (", "found 2.22.0, expected 2.28.3, the value of rank 0 ("]);
}

#[test]
fn what_is_no_nccl_or_too_old_is_said() {
    let said = |names: &[&str]| {
        let names: Vec<&Path> = names.iter().map(Path::new).collect();
        Library::open(&names, "NCCL").map(drop).unwrap_err().to_string()
    };
    let text = said(&["libnccl-of-nobody.so.2", "libnccl-of-nobody.so"]);
    let parts = ["NCCL: found none", "libnccl-of-nobody.so.2", "expected NCCL 2.22.0 or later", "nvidia-nccl-cu13"];
    assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    let text = said(&["libm.so.6"]);
    assert!(text.contains("libm.so.6: found no ncclGetVersion"), "{text}");
    let text = StandIn::new("version 2804\n").open().map(drop).unwrap_err().to_string();
    assert!(text.contains("found NCCL 2.8.4, expected 2.22.0 or later"), "{text}");
    // If one of two ranks has no library, the other rank receives an error.
    let stand_in = StandIn::new("");
    let ends = by_rank(entries(2), |tcp| {
        let tcp = tcp?;
        let none = tcp.rank() == 1;
        let open = || if none { Library::open(&[Path::new("libnccl-of-nobody.so")], "NCCL") } else { stand_in.open() };
        Nccl::start(tcp, || Ok((open()?, Box::new(emu()) as Box<dyn Driver>))).map(drop)
    });
    assert_errors(&ends, &["libnccl-of-nobody.so"]);
    assert!(ends[0].as_ref().unwrap_err().to_string().contains("rank 1 ("));
}

/// Starts two processes that exchange data with NCCL. Rank 1 hangs in the exchange. If `fails` is true, rank 1 reports
/// an error of its own instead.
fn stuck(stand_in: &StandIn, timeout_s: &str, fails: bool) -> [Child; 2] {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    [0, 1].map(|rank| {
        Command::new(std::env::current_exe().unwrap())
            .args(["ranks::nccl::a_rank_of_its_own", "--exact", "--nocapture"])
            .env("OMR_TEST_RANK", format!("{rank} {port} {timeout_s} {fails} {}", stand_in.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    })
}

/// Runs as one rank in a child process of [`stuck`]. In other processes it does nothing.
#[test]
fn a_rank_of_its_own() {
    let Ok(settings) = std::env::var("OMR_TEST_RANK") else { return };
    let settings: Vec<&str> = settings.splitn(5, ' ').collect();
    let mut entry = entries(2).remove(settings[0].parse().unwrap());
    (entry.place.port, entry.listener) = (settings[1].parse().ok(), None);
    (entry.config.timeout_s, entry.config.heartbeat_s) = (settings[2].parse().unwrap(), 30.0);
    let end = |error: &Error| {
        eprintln!("omr: {error}");
        std::process::exit(error.exit_code().into());
    };
    let tcp = super::start_with(&mut entry, Box::new(end)).unwrap();
    let mut ranks = Nccl::start(tcp, || {
        Ok((Library::open(&[Path::new(settings[4])], "the stand-in")?, Box::new(emu()) as Box<dyn Driver>))
    })
    .unwrap();
    let error = match (settings[0], settings[3]) {
        ("1", "true") => Error::Failed("a fault of its own".to_owned()),
        _ => small(&mut ranks).unwrap_err(),
    };
    let _ = ranks.leave(Err(&error));
    end(&error);
}

/// Waits until both ranks are inside the exchange that does not end.
fn until_stuck(stand_in: &StandIn, children: &mut [Child; 2]) {
    let groups = |rank| stand_in.log(rank).iter().filter(|line| line.starts_with("group")).count();
    until("both ranks inside the exchange", || {
        if let Some(ended) = children.iter_mut().position(|child| child.try_wait().unwrap().is_some()) {
            children.iter_mut().for_each(|child| drop(child.kill()));
            let mut said = String::new();
            children[ended].stderr.as_mut().unwrap().read_to_string(&mut said).unwrap();
            panic!("rank {ended} has ended: {said}");
        }
        groups(0) >= 2 && groups(1) >= 2
    });
}

#[test]
fn a_rank_that_dies_in_a_move_is_named_and_the_move_aborted() {
    for play in ["stuck 1 1\n", "stuck 1 1\nabort hangs\n"] {
        let stand_in = StandIn::new(play);
        let mut children = stuck(&stand_in, "60", false);
        until_stuck(&stand_in, &mut children);
        let [first, mut second] = children;
        second.kill().unwrap();
        let (pid, end) = (second.id(), first.wait_with_output().unwrap());
        let _ = second.wait();
        let text = String::from_utf8_lossy(&end.stderr).into_owned();
        assert_eq!(end.status.code(), Some(1), "{text}");
        for part in ["rank 1 (", &format!("process {pid})"), "is lost"] {
            assert!(text.contains(part), "{text}, not {part}");
        }
        assert_eq!(stand_in.log(0).last().unwrap(), "abort");
    }
}

#[test]
fn a_move_that_no_rank_ends_ends_all_in_time() {
    let stand_in = StandIn::new("stuck 1 1\n");
    for (rank, child) in stuck(&stand_in, "5", false).into_iter().enumerate() {
        let end = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&end.stderr).into_owned();
        assert_eq!(end.status.code(), Some(1), "{text}");
        for part in ["\"pieces\" (collective ", ") has waited 5 s although all ranks"] {
            assert!(text.contains(part), "{text}, not {part}");
        }
        assert_eq!(stand_in.log(rank).last().unwrap(), "abort");
    }
}

#[test]
fn a_fault_of_a_rank_is_said_before_it_aborts_what_may_hang() {
    let stand_in = StandIn::new("abort hangs\n");
    for child in stuck(&stand_in, "60", true) {
        let end = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&end.stderr).into_owned();
        assert_eq!(end.status.code(), Some(1), "{text}");
        assert!(text.contains("a fault of its own"), "{text}");
    }
}
