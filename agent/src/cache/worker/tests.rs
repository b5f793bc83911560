use super::super::Memory;
use super::super::seal::Seal;
use super::*;
use farcall::cache::{Kept, Landing};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Hangs until it is let go.
#[derive(Debug)]
struct Stuck(Sender<()>, Receiver<()>);

impl Tier for Stuck {
    fn read(&mut self, _: Key) -> io::Result<Option<Vec<u8>>> {
        let _ = (self.0.send(()), self.1.recv());
        Ok(None)
    }

    fn write(&mut self, _: Key, _: &[u8], _: Duration) -> io::Result<()> {
        let _ = (self.0.send(()), self.1.recv());
        Err(io::ErrorKind::TimedOut.into())
    }

    fn remove(&mut self, _: Key) -> io::Result<()> {
        Ok(())
    }

    fn walk(&mut self, _: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn no_end_of_a_call_waits_behind_a_tier_that_hangs() {
    let home = tempfile::tempdir().unwrap();
    let common =
        Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
    let ((told, reads), (go, goes)) = (channel(), channel());
    let worker = Worker::new("stuck", Arc::new(common), None, Box::new(Stuck(told, goes)), None, HANGS);
    let worker = Arc::new(worker);
    worker.start().unwrap();
    let land = || worker.give(Job::Land(Key::of(1), Landing::Over, Timestamp::EPOCH));
    assert!(land(), "in its turn");
    assert!(worker.give(Job::Fetch(Key::of(1), Fetch::new(Timestamp::EPOCH))));
    reads.recv().unwrap();
    let begun = Instant::now();
    while land() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it waits behind what hangs");
        std::thread::sleep(Duration::from_millis(20));
    }
    go.send(()).unwrap();
    worker.stop(Instant::now() + Duration::from_secs(60));
}

#[test]
fn nobody_who_ends_or_forks_waits_for_a_tier_that_hangs_nor_for_each_answer_of_one_that_fails() {
    let home = tempfile::tempdir().unwrap();
    let common =
        Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
    let ((told, writes), (go, goes)) = (channel(), channel());
    let worker = Worker::new("stuck", Arc::new(common), None, Box::new(Stuck(told, goes)), None, MINDED);
    let worker = Arc::new(worker);
    worker.start().unwrap();
    let kept = || Kept::Varies(["accept".into()].into());
    for number in 0..1_000 {
        worker.give(Job::Put(Key::of(number), kept(), TICK));
    }
    writes.recv().unwrap();
    let (done, is_done) = channel();
    let stops = Arc::clone(&worker);
    std::thread::spawn(move || {
        stops.stop(Instant::now() + Duration::from_millis(10));
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("it waits for what never answers");
    // It goes on, as after a fork; what hung ends when it comes back, and all else is let go of.
    worker.start().unwrap();
    drop(go);
    worker.stop(Instant::now() + Duration::from_secs(60));
    let more = writes.try_iter().count();
    assert!(more < 500, "{more} of 1,000 were tried at a tier that fails");
    assert!(worker.common.counts.unwritten.load(Ordering::Relaxed) > 500);
}

/// Fails to forget until it is whole again.
#[derive(Debug)]
struct Broken(Arc<AtomicU64>, Sender<()>);

impl Tier for Broken {
    fn read(&mut self, _: Key) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn write(&mut self, _: Key, _: &[u8], _: Duration) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, _: Key) -> io::Result<()> {
        Ok(())
    }

    fn walk(&mut self, _: &mut dyn FnMut(Key, Vec<u8>) -> bool) -> io::Result<u64> {
        if self.0.load(Ordering::Relaxed) > 0 {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.1.send(()).map_err(io::Error::other)?;
        Ok(0)
    }
}

#[test]
fn a_tier_that_could_not_forget_is_told_until_it_has() {
    let home = tempfile::tempdir().unwrap();
    let common =
        Common::new(Memory::new(1 << 20), Seal::of(home.path()).unwrap(), Box::new(|| Timestamp::EPOCH));
    let (told, purged) = channel();
    let broken = Broken(Arc::new(AtomicU64::new(2)), told);
    let worker = Arc::new(Worker::new("broken", Arc::new(common), None, Box::new(broken), None, HANGS));
    worker.start().unwrap();
    for _ in 0..3 {
        assert!(worker.give(Job::Purge(Arc::new(|_| true), Timestamp::EPOCH)));
    }
    for number in 0..3 {
        let gone = purged.recv_timeout(Duration::from_secs(120));
        assert!(gone.is_ok(), "purge {number} was forgotten instead");
    }
    worker.stop(Instant::now() + Duration::from_secs(60));
    assert_eq!(purged.try_iter().count(), 0, "and told once");
}
