//! A gate in front of a simulated exchange: what comes waits until it is opened.

use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{sleep, spawn};
use std::time::Duration;

/// Accepts connections at once and passes nothing on until it is opened. Its threads end with their
/// connections, or with the process.
pub(crate) struct Gate {
    pub(crate) addr: SocketAddr,
    open: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

impl Gate {
    pub(crate) fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let gate =
            Self { addr: listener.local_addr().unwrap(), open: Arc::default(), accepted: Arc::default() };
        let (open, accepted) = (Arc::clone(&gate.open), Arc::clone(&gate.accepted));
        spawn(move || {
            for client in listener.incoming() {
                accepted.fetch_add(1, SeqCst);
                let (client, open) = (client.unwrap(), Arc::clone(&open));
                spawn(move || pass(&client, &open, server));
            }
        });
        gate
    }

    pub(crate) fn open(&self) {
        self.open.store(true, SeqCst);
    }

    /// Connections that have come, held up or not.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}

fn pass(client: &TcpStream, open: &AtomicBool, server: SocketAddr) {
    while !open.load(SeqCst) {
        sleep(Duration::from_millis(5));
    }
    let Ok(server) = TcpStream::connect(server) else { return };
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let there = spawn(move || {
        // However it ends, the other direction must learn of it.
        let _ended = copy(&mut from_client, &mut to_server);
        let _gone = to_server.shutdown(Shutdown::Write);
    });
    let _ended = copy(&mut &server, &mut &*client);
    let _gone = client.shutdown(Shutdown::Both);
    let _panicked = there.join();
}
