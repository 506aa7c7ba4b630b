//! Tests that all ranks receive an error that names a rank that is lost, late, replaced or failed. All ranks end, and
//! nothing hangs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use omr_base::error::{Error, Result};
use omr_base_tests::wait::until;
use omr_runtime::ranks::{Ranks, Tcp};

use super::{Entry, all_end, by_rank, entries};

/// Returns entries with short timeouts for tests.
fn hasty(size: usize) -> Vec<Entry> {
    let mut entries = entries(size);
    entries.iter_mut().for_each(|entry| entry.config.timeout_s = 2.0);
    entries
}

/// Runs collectives until one fails.
fn gather_until_error(tcp: &mut Tcp) -> Result<()> {
    loop {
        tcp.gather("losses", &[0; 100])?;
    }
}

/// Asserts that every rank except `except` has an error with all of `parts` and the same exit code.
fn assert_errors(errors: &[Error], except: Option<usize>, exit_code: u8, parts: &[&str]) {
    for (rank, error) in errors.iter().enumerate().filter(|(rank, _)| Some(*rank) != except) {
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "rank {rank}: {text}, not {parts:?}");
        assert_eq!(error.exit_code(), exit_code, "rank {rank}: {text}");
    }
}

#[test]
fn one_that_is_gone_without_a_goodbye_is_lost() {
    for lost in 0..3 {
        let errors = by_rank(entries(3), |tcp| {
            let mut tcp = tcp.unwrap();
            if tcp.rank() == lost {
                tcp.gather("losses", &[]).unwrap();
                return Error::Failed("gone".to_owned());
            }
            gather_until_error(&mut tcp).unwrap_err()
        });
        let process = format!("process {}", std::process::id());
        assert_errors(
            &errors,
            Some(lost),
            1,
            &[&format!("rank {lost} ("), &process, "is lost", "its connection closed"],
        );
    }
}

#[test]
fn what_one_failed_of_is_what_all_end_with() {
    for failed in 0..3 {
        let errors = all_end(entries(3), |tcp| {
            tcp.gather("losses", &[])?;
            if tcp.rank() == failed {
                return Err(Error::input("rows.jsonl", "a broken row", "JSON"));
            }
            gather_until_error(tcp)
        });
        assert_errors(
            &errors,
            Some(failed),
            2,
            &[&format!("rank {failed} ("), "has ended: rows.jsonl: found a broken row"],
        );
        let ranks_word = |error: &Error| matches!(error, Error::Rank { reported, .. } if *reported);
        // Rank 0 reports the error to the user, unless the error is its own.
        assert!((1..3).filter(|rank| *rank != failed).all(|rank| ranks_word(&errors[rank])));
        assert!(!ranks_word(&errors[0]));
    }
}

#[test]
fn one_in_another_collective_is_named_with_both() {
    let errors = all_end(entries(3), |tcp| match tcp.rank() {
        2 => tcp.gather("touched", &[]).map(drop),
        _ => tcp.gather("losses", &[]).map(drop),
    });
    assert_errors(&errors, None, 1, &["rank 2 (", "\"touched\"", "\"losses\""]);
    let errors = all_end(entries(2), |tcp| match tcp.rank() {
        0 => gather_until_error(tcp),
        _ => tcp.leave(Ok(())),
    });
    assert_errors(&errors, None, 1, &["rank 1 (", "\"goodbye\"", "rank 0 (", "\"losses\""]);
}

#[test]
fn one_that_does_not_come_is_named_with_where_it_is() {
    let has_failed = AtomicBool::new(false);
    let errors = all_end(hasty(3), |tcp| {
        tcp.gather("losses", &[])?;
        if tcp.rank() == 1 {
            // The rank is alive but not in a collective when the error arrives.
            until("the error of rank 0", || has_failed.load(Ordering::Relaxed));
        }
        let done = tcp.gather("touched", &[]).map(drop);
        has_failed.fetch_or(tcp.rank() == 0, Ordering::Relaxed);
        done
    });
    assert_errors(
        &errors,
        None,
        1,
        &["\"touched\" (collective 2) has waited 2 s for rank 1 (", "after \"losses\" (collective 1)"],
    );
}

/// Tests that the other ranks wait longer than the timeout for one rank's long work, unless that rank is lost.
#[test]
fn what_takes_one_rank_long_is_waited_for() {
    let long = |lost: bool| {
        let mut entries = hasty(3);
        entries.iter_mut().for_each(|entry| entry.config.timeout_s = 0.5);
        by_rank(entries, move |tcp| {
            let mut tcp = tcp.unwrap();
            let work = || std::thread::sleep(Duration::from_millis(1200));
            if tcp.rank() == 0 {
                work();
            }
            if lost && tcp.rank() == 0 {
                return Ok(Vec::new());
            }
            let own = [tcp.rank() as u8];
            let all = tcp.await_all("the report", &own)?;
            tcp.leave(Ok(()))?;
            Ok(all)
        })
    };
    for all in long(false) {
        assert_eq!(all.unwrap(), [[0], [1], [2]]);
    }
    let lost: Vec<Result<_>> = long(true);
    let errors: Vec<Error> = lost.into_iter().skip(1).map(Result::unwrap_err).collect();
    assert_errors(&errors, None, 1, &["rank 0 (", "is lost"]);
}

#[test]
fn one_that_stops_beating_is_lost() {
    for silent in [0, 1] {
        let mut entries = hasty(2);
        // A rank sends heartbeats at a fifth of its own interval, or every half second if that is shorter. Here this is
        // too slow for the other rank.
        entries[1 - silent].config.heartbeat_s = 0.2;
        entries[silent].config.heartbeat_s = 60.0;
        entries.iter_mut().for_each(|entry| entry.config.timeout_s = 60.0);
        let errors = all_end(entries, gather_until_error);
        assert_errors(&errors, None, 1, &[&format!("rank {silent} ("), "no heartbeat from it for 0.2 s"]);
    }
}

#[test]
fn another_program_size_or_rank_is_refused_by_name() {
    let mut other = hasty(3);
    other[2].program = "omr 0.0.9".to_owned();
    let errors = all_end(other, gather_until_error);
    assert_errors(
        &errors,
        None,
        2,
        &["program of rank 2 (", "found omr 0.0.9, expected omr of this test, the value of rank 0"],
    );

    let mut other = hasty(2);
    other[1].place.size = 3;
    assert_errors(
        &all_end(other, gather_until_error),
        None,
        2,
        &["number of ranks of rank 1 (", "found 3, expected 2, the value of rank 0"],
    );

    let mut other = hasty(3);
    other[2].place.rank = 1;
    let errors = all_end(other, gather_until_error);
    assert_errors(&errors[..1], None, 2, &["rank 1: found two processes"]);
    // One of the two processes is refused, and the other one receives an error, too.
    assert_errors(&errors, None, 2, &["two processes"]);
}

#[test]
fn one_of_an_earlier_round_is_sent_away_and_not_waited_with() {
    let mut other = hasty(2);
    other[0].place.round = 1;
    let errors = all_end(other, gather_until_error);
    assert_errors(&errors[1..], None, 2, &["rank 1 (", "restart 0, but rank 0 belongs to restart 1"]);
    assert_errors(&errors[..1], None, 1, &["rank 1 has not connected within 2 s", "refused: rank 1 ("]);
    // If the other rank belongs to a later restart, this rank 0 will exit soon and a new rank 0 will start.
    let mut other = hasty(2);
    other[1].place.round = 1;
    let errors = all_end(other, gather_until_error);
    assert_errors(&errors[..1], None, 1, &["rank 1 has not connected within 2 s"]);
    assert_errors(&errors[1..], None, 1, &["no connection to rank 0", "restart 1"]);
}

#[test]
fn one_of_another_run_is_sent_away_and_not_waited_with() {
    let mut other = hasty(2);
    other[1].place.run = "Slurm 8.0".to_owned();
    other[1].program = "another".to_owned();
    let errors = all_end(other, gather_until_error);
    assert_errors(
        &errors[..1],
        None,
        1,
        &["rank 1 has not connected within 2 s", "run \"Slurm 8.0\", but rank 0 belongs to run \"\""],
    );
    assert_errors(&errors[1..], None, 1, &["no connection to rank 0", "run \"Slurm 8.0\""]);
}

#[test]
fn no_rank_0_and_no_others_is_said_in_time() {
    let mut alone = hasty(3);
    let (first, others) = (alone.remove(0), alone);
    assert_errors(&all_end(vec![first], gather_until_error), None, 1, &["rank 1, 2 has not connected within 2 s"]);
    assert_errors(&all_end(others, gather_until_error), None, 1, &["no connection to rank 0 at 127.0.0.1, port"]);
    // The port is closed now.
}
