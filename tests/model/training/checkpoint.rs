//! Tests that checkpoints are either complete or absent, whatever fails.

use std::fs;
use std::path::Path;

use omr_base::error::{Error, Result};
use omr_base::identity::{Inputs, Manifest, Part};
use omr_base_tests::wait::until;
use omr_model::checkpoint::{Cadence, Checkpoint, Resume, State, Store};
use proptest::prelude::*;

/// Returns the state that a checkpoint records.
pub fn state(step: u64) -> State {
    State {
        step,
        samples_consumed: step.wrapping_mul(32),
        seed: 7,
        config_hash: State::hash_of("lr: 1.0"),
        device: "cpu".into(),
        cpu_body: "avx2".into(),
        gpu_body: None,
        versions: State::versions(),
        inputs: Inputs::default(),
        extra: serde_json::Map::new(),
    }
}

fn write(folder: &Path, step: u64) -> Result<()> {
    let weights = folder.join("model.safetensors");
    fs::write(&weights, vec![step as u8; 1000]).map_err(Error::io(&weights))?;
    state(step).write(&folder.join("trainer"))
}

fn save(store: &Store, step: u64) {
    save_by(store, step, None, |folder| write(folder, step)).unwrap();
}

/// Saves step `step`. `write` fills its folder.
fn save_by(store: &Store, step: u64, best: Option<u64>, write: impl FnOnce(&Path) -> Result<()>) -> Result<Checkpoint> {
    let draft = store.begin(step)?;
    write(draft.folder())?;
    draft.commit(best, &[])
}

fn steps(store: &Store) -> Vec<u64> {
    store.list().unwrap().iter().map(|c| c.step).collect()
}

#[test]
fn the_newest_are_kept_and_latest_names_the_last() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 2).unwrap();
    assert_eq!(store.resume(&Resume::Auto).unwrap(), []);
    for step in [5, 10, 100, 101] {
        save(&store, step);
    }
    assert_eq!(steps(&store), [100, 101]);
    assert_eq!(fs::read_to_string(run.path().join("latest")).unwrap(), "global_step_101\n");
    let newest = store.resume(&Resume::Auto).unwrap().remove(0);
    assert_eq!(newest.state().unwrap(), state(101));
    save(&store, 101);
    assert_eq!(steps(&store), [100, 101]);
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 2);
}

#[test]
fn resume_means_what_it_says() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    let found =
        |store: &Store, resume: &Resume| -> Vec<u64> { store.resume(resume).unwrap().iter().map(|c| c.step).collect() };
    assert_eq!(store.resume(&"never".into()).unwrap(), []);
    save(&store, 4);
    save(&store, 8);
    assert_eq!(store.resume(&"never".into()).unwrap_err().exit_code(), 2);
    let path = |step: u64| Resume::Path(run.path().join(format!("checkpoints/global_step_{step}")));
    assert_eq!(found(&store, &Resume::Auto), [8, 4]);
    assert_eq!(found(&store, &path(8)), [8]);
    assert_eq!(found(&store, &path(4)), [4]);
    assert_eq!(store.resume(&path(6)).unwrap_err().exit_code(), 2);

    let other = tempfile::tempdir().unwrap();
    let elsewhere = Store::open(other.path(), 3).unwrap();
    assert_eq!(found(&elsewhere, &path(4)), [4]);
    assert_eq!(found(&elsewhere, &Resume::Path(run.path().into())), [8, 4]);
    assert_eq!(elsewhere.resume(&Resume::Path(other.path().into())).unwrap_err().exit_code(), 2);
    // A checkpoint of another run that is older than an existing one.
    save(&elsewhere, 6);
    assert!(elsewhere.resume(&path(4)).unwrap_err().to_string().contains("step 6"));
}

#[test]
fn a_run_that_goes_back_has_its_later_checkpoints_beside_it() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    for (step, best) in [(4, None), (8, Some(8)), (12, Some(8))] {
        save_by(&store, step, best, |folder| write(folder, step)).unwrap();
    }
    let at = |name: &str| run.path().join("checkpoints").join(name);
    assert_eq!(store.go_back(12).unwrap(), Vec::<std::path::PathBuf>::new());
    assert_eq!(store.go_back(4).unwrap(), [at("global_step_8.1"), at("global_step_12.1")]);
    assert_eq!(steps(&store), [4]);
    store.settle(4, None).unwrap();
    assert_eq!(fs::read_to_string(run.path().join("latest")).unwrap(), "global_step_4\n");
    assert!(!run.path().join("best").exists());
    save(&store, 8);
    assert_eq!(store.go_back(4).unwrap(), [at("global_step_8.2")]);
    assert!(at("global_step_8.1/trainer/state.json").is_file());
}

/// A kill between the rename of a checkpoint and these files leaves older names in them, or none.
#[test]
fn a_start_and_a_commit_write_latest_and_best_anew() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    let names = || ["latest", "best"].map(|file| fs::read_to_string(run.path().join(file)).unwrap_or_default());
    let stale = |latest: &str, best: Option<&str>| {
        fs::write(run.path().join("latest"), latest).unwrap();
        let file = run.path().join("best");
        best.map_or_else(|| drop(fs::remove_file(&file)), |best| fs::write(&file, best).unwrap());
    };
    let saved = |step: u64, best: u64| save_by(&store, step, Some(best), |folder| write(folder, step)).unwrap();
    saved(4, 4);
    saved(8, 4);
    let right = ["global_step_8\n", "global_step_4\n"].map(str::to_owned);
    assert_eq!(names(), right);
    for best in [Some("global_step_2\n"), None] {
        stale("global_step_4\n", best);
        store.settle(8, Some(4)).unwrap();
        assert_eq!(names(), right);
        stale("global_step_4\n", best);
        saved(12, 4);
        assert_eq!(names(), ["global_step_12\n", "global_step_4\n"].map(str::to_owned));
        fs::remove_dir_all(run.path().join("checkpoints/global_step_12")).unwrap();
    }
}

#[test]
fn a_manifest_tells_what_was_changed() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    save(&store, 3);
    let folder = store.latest().unwrap().unwrap().path;
    let check = || -> Result<()> {
        let manifest = Manifest::read(&folder)?.unwrap();
        manifest.check(&folder, Part::Settings).and_then(|()| manifest.check(&folder, Part::Tensors))
    };
    check().unwrap();
    // In the format of `b3sum`.
    let text = fs::read_to_string(folder.join("MANIFEST")).unwrap();
    let line = format!("{}  model.safetensors\n", blake3::hash(&[3; 1000]).to_hex());
    assert!(text.starts_with(&line) && text.lines().count() == 3, "{text}");
    for name in ["MANIFEST", "model.safetensors", "trainer/kept", "trainer/state.json"] {
        let path = folder.join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            let error = check().expect_err(&format!("a bit of byte {at} of {name} was not seen"));
            assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
        }
        for len in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(check().is_err(), "{name} of {len} bytes");
        }
        fs::remove_file(&path).unwrap();
        if name != "MANIFEST" {
            assert!(check().unwrap_err().to_string().contains(name));
        }
        fs::write(&path, &whole).unwrap();
    }
    fs::write(folder.join("model-00001-of-00002.safetensors"), "x").unwrap();
    assert!(check().unwrap_err().to_string().contains("not listed in MANIFEST"));
    fs::remove_file(folder.join("model-00001-of-00002.safetensors")).unwrap();
    fs::remove_file(folder.join("MANIFEST")).unwrap();
    assert_eq!(Manifest::read(&folder).unwrap(), None);
}

#[test]
fn a_failing_save_leaves_the_older_checkpoint_and_nothing_else() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 1).unwrap();
    save(&store, 1);
    let failed = save_by(&store, 2, None, |folder| {
        write(folder, 2)?;
        Err(Error::Io { path: folder.into(), source: std::io::Error::from(std::io::ErrorKind::StorageFull) })
    });
    assert_eq!(failed.unwrap_err().exit_code(), 1);
    assert_eq!(steps(&store), [1]);
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(run.path().join("latest")).unwrap(), "global_step_1\n");
}

/// Tests a write to `/dev/full`, which rejects every byte like a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_clear_error_and_leaves_nothing() {
    use std::io::Write;
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    save(&store, 1);
    let failed = save_by(&store, 2, None, |folder| {
        let path = folder.join("model.safetensors");
        std::os::unix::fs::symlink("/dev/full", &path).map_err(Error::io(&path))?;
        let mut file = fs::File::options().write(true).open(&path).map_err(Error::io(&path))?;
        file.write_all(&[0; 1 << 16]).map_err(Error::io(&path))
    });
    let error = failed.unwrap_err();
    assert!(error.exit_code() == 1 && error.to_string().contains("space"), "{error}");
    assert_eq!(steps(&store), [1]);
    assert_eq!(fs::read_dir(run.path().join("checkpoints")).unwrap().count(), 1);
}

/// Tests a save on a small file system that becomes full, if this process is allowed to mount one.
#[cfg(target_os = "linux")]
#[test]
fn a_small_tmpfs_fills_up_and_the_older_checkpoint_stays() {
    let run = tempfile::tempdir().unwrap();
    let mount = ["-t", "tmpfs", "-o", "size=256k", "tmpfs"];
    let mounted = std::process::Command::new("mount").args(mount).arg(run.path()).output();
    if !mounted.is_ok_and(|out| out.status.success()) {
        println!("mount refused: /dev/full alone stands for a full disk");
        return;
    }
    let store = Store::open(run.path(), 3).unwrap();
    let mut failures = Vec::new();
    for step in 1..=8 {
        let saved = save_by(&store, step, None, |folder| {
            let ballast = folder.join("ballast");
            fs::write(&ballast, vec![1; 60_000]).map_err(Error::io(&ballast))?;
            write(folder, step)
        });
        failures.extend(saved.err());
    }
    let left = (steps(&store), store.latest().unwrap().unwrap().state().unwrap());
    let hidden = fs::read_dir(run.path().join("checkpoints")).unwrap().count();
    assert!(std::process::Command::new("umount").arg(run.path()).status().unwrap().success());
    assert_eq!(left, (vec![1, 2, 3], state(3)));
    assert_eq!(hidden, 3);
    assert!(failures.len() == 5 && failures.iter().all(|e| e.exit_code() == 1), "{failures:?}");
}

/// Tests the files that a SIGKILL during a save or a removal leaves on disk.
#[test]
fn leftovers_of_a_killed_run_are_cleared_and_never_taken_for_a_checkpoint() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    save(&store, 3);
    let folder = run.path().join("checkpoints");
    for leftover in [".global_step_4.tmp-99", ".global_step_2.tmp-98", ".global_step_3.old-99"] {
        fs::create_dir(folder.join(leftover)).unwrap();
        fs::write(folder.join(leftover).join("model.safetensors"), b"half").unwrap();
    }
    // Between the two renames of a replacement, the old folder has its temporary name.
    fs::create_dir_all(folder.join(".global_step_7.old-99/trainer")).unwrap();
    write(&folder.join(".global_step_7.old-99"), 7).unwrap();
    fs::write(run.path().join(".latest.tmp-99"), b"glo").unwrap();
    fs::write(run.path().join("config.yaml"), omr_base::files::HEAD).unwrap();

    let store = Store::open(run.path(), 3).unwrap();
    assert_eq!(steps(&store), [3, 7]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    assert!(!run.path().join(".latest.tmp-99").exists());
    assert_eq!(store.latest().unwrap().unwrap().state().unwrap(), state(7));
}

#[test]
fn a_broken_state_is_named() {
    let run = tempfile::tempdir().unwrap();
    let store = Store::open(run.path(), 3).unwrap();
    save(&store, 3);
    let checkpoint = store.latest().unwrap().unwrap();
    let path = checkpoint.trainer().join("state.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let error = checkpoint.state().unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("state.json"), "{error}");
    fs::write(&path, text.replace("\"step\": 3", "\"step\": 4")).unwrap();
    assert!(checkpoint.state().unwrap_err().to_string().contains("step 4 in the folder of step 3"));
}

#[test]
fn a_checkpoint_is_due_by_steps_or_by_time() {
    let by_steps = Cadence::new(Some(5), None).unwrap();
    assert_eq!((1..=10).filter(|&s| by_steps.due(s)).collect::<Vec<_>>(), [5, 10]);
    let mut by_time = Cadence::new(None, Some(0.02)).unwrap();
    until("a checkpoint that is due by time", || by_time.due(1));
    let before = by_time.since();
    by_time.saved();
    assert!(by_time.since() < before, "the time counts from the checkpoint");
    assert!(!Cadence::new(None, Some(1e6)).unwrap().due(1));
    assert!(!Cadence::new(None, None).unwrap().due(1_000_000));
    assert!(Cadence::new(None, Some(f64::NAN)).is_err());
}

#[test]
fn a_resume_over_another_arithmetic_says_so() {
    let dir = tempfile::tempdir().unwrap();
    state(1).write(dir.path()).unwrap();
    let path = dir.path().join("state.json");
    let warning = |text: String| {
        fs::write(&path, text).unwrap();
        State::read(dir.path()).unwrap().other_arithmetic("cpu", "avx2", None)
    };
    let now = fs::read_to_string(&path).unwrap();
    assert_eq!(warning(now.clone()), None);
    // Older versions wrote this format, which does not record the version of the arithmetic.
    let (version, rest) = now.split_once("\"arithmetic\": \"").unwrap().1.split_once("\",").unwrap();
    let older = now.replace(&format!("\"arithmetic\": \"{version}\",{}", rest.split('"').next().unwrap()), "");
    let want = format!(
        "made on cpu, avx2, arithmetic 1 and this is cpu, avx2, arithmetic {version}: results may not be bitwise \
         identical"
    );
    assert!(warning(older).unwrap().ends_with(&want));
}

proptest! {
    #![proptest_config(omr_base_tests::seed::proptest(64))]

    #[test]
    fn a_state_survives_its_file(step: u64, seed: u64, samples_consumed: u64, cpu_body in "[a-z0-9]{0,9}") {
        let dir = tempfile::tempdir().unwrap();
        let state = State { seed, samples_consumed, cpu_body, ..state(step) };
        state.write(dir.path()).unwrap();
        prop_assert_eq!(State::read(dir.path()).unwrap(), state);
    }
}
