//! Tests what ranks hear before all have met: a rank that fails or has no secret, another program at the port, and for
//! whom a rank waits.

use std::net::TcpListener;

use omr_base::error::Error;
use omr_runtime::ranks::{Ranks, Secret, tell_early};

use super::{Entry, all_well, entries, start, with_start};

/// Starts all ranks except `failed`, which tells them that it has failed, and returns their errors.
fn told_of(failed: usize, mut entries: Vec<Entry>) -> Vec<Error> {
    // Rank 0 listens as soon as it has started, not before.
    entries[0].listener = None;
    std::thread::scope(|scope| {
        let run = |(rank, mut entry): (usize, Entry)| {
            scope.spawn(move || {
                let error = Error::input("sft.yaml", "nothing", "a config");
                match rank == failed {
                    true => with_start(&mut entry, Box::new(|_| {}), |start| tell_early(&start, &error)).err(),
                    false => start(&mut entry).err(),
                }
            })
        };
        let ranks: Vec<_> = entries.into_iter().enumerate().map(run).collect();
        ranks.into_iter().filter_map(|rank| rank.join().unwrap()).collect()
    })
}

#[test]
fn a_rank_that_fails_before_the_meeting_ends_the_others_without_a_wait() {
    for failed in 0..3 {
        // One of the ranks has another secret, or none. All hear of the fault nevertheless.
        let mut entries = entries(3);
        entries[2].secret = Secret::of("/nowhere".as_ref());
        let errors = told_of(failed, entries);
        assert_eq!(errors.len(), 2, "{errors:?}");
        for error in errors {
            let text = error.to_string();
            assert!(text.contains("sft.yaml: found nothing, expected a config") && error.exit_code() == 2, "{text}");
            assert!(failed == 0 || text.contains(&format!("rank {failed} (")), "{text}");
        }
    }
}

#[test]
fn ranks_that_do_not_share_their_folder_all_say_so() {
    let mut entries = entries(3);
    entries.iter_mut().for_each(|entry| entry.config.timeout_s = 4.0);
    entries[1].secret = Secret::of("/another/run".as_ref());
    let errors = super::all_end(entries, |tcp| tcp.gather("losses", &[]).map(drop));
    for (rank, error) in errors.iter().enumerate() {
        let text = error.to_string();
        assert!(error.exit_code() == 2 && text.contains("use one --out that all ranks share"), "rank {rank}: {text}");
    }
    // Rank 0 names the rank.
    assert!(errors[0].to_string().contains("no such secret at rank 1 ("), "{}", errors[0]);
}

#[test]
fn a_silent_program_at_the_port_of_rank_0_is_named_soon() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut entry = entries(2).remove(1);
    entry.config.timeout_s = 2.0;
    let port = silent.local_addr().unwrap().port();
    entry.place.port = Some(port);
    let text = start(&mut entry).err().unwrap().to_string();
    assert!(text.contains(&format!("port {port}")) && text.contains("another program listens at that port"), "{text}");
}

#[test]
fn a_rank_that_waits_says_for_whom_and_where() {
    let mut entries = entries(4);
    let port = entries[0].place.port.unwrap();
    entries.iter_mut().for_each(|entry| entry.config.timeout_s = 2.0);
    entries.remove(3);
    let notes = entries[0].notes.clone();
    entries.remove(1);
    let errors = super::all_end(entries, |_| Ok(()));
    assert!(errors.iter().all(|error| error.to_string().contains("rank 1, 3 has not connected within 2 s")));
    assert_eq!(*notes.lock().unwrap(), [format!("waiting for rank 1, 3 of 4 at 127.0.0.1, port {port}")]);

    // Nothing listens for rank 1, and rank 0 waits at an address that is not its own.
    let mut entries = super::entries(2);
    entries.iter_mut().for_each(|entry| entry.config.timeout_s = 2.0);
    let mut second = entries.remove(1);
    second.place.port = Some(1);
    let text = start(&mut second).err().unwrap().to_string();
    assert!(text.contains("no connection to rank 0 at 127.0.0.1, port 1 within 2 s: Connection refused"), "{text}");
    assert!(text.contains("nothing listens there"), "{text}");
    let notes = second.notes.lock().unwrap();
    assert!(notes[0].starts_with("waiting for rank 0 at 127.0.0.1, port 1: Connection refused"), "{notes:?}");
    entries[0].place.address = "192.0.2.1".to_owned();
    let _ = start(&mut entries[0]).err().unwrap();
    let notes = entries[0].notes.lock().unwrap();
    assert!(notes[0].contains("192.0.2.1 is no address of this machine ("), "{notes:?}");
}

#[test]
fn every_address_of_this_machine_can_be_that_of_rank_0() {
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    for address in ["127.0.1.1", "127.3.2.1", "localhost", "::1"].iter().filter(|at| has_ipv6 || **at != "::1") {
        let mut entries = entries(3);
        entries[0].listener = None;
        entries.iter_mut().for_each(|entry| entry.place.address = (*address).to_owned());
        let ranks = all_well(entries, |tcp| tcp.gather("ranks", &[tcp.rank() as u8]));
        ranks.iter().for_each(|all| assert_eq!(*all, [[0], [1], [2]], "{address}"));
    }
}
