//! Connections.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::{Bench, PATIENCE, Tested, on_every_engine};
use crate::engine::{ConnId, Ended, Event, ListenerIndex, Sockets};
use crate::sys::net::open_tcp;

const FIRST: ListenerIndex = ListenerIndex(0);

on_every_engine!(
    a_connection_is_accepted_heard_answered_and_closed,
    bytes_sent_in_a_row_arrive_in_a_row,
    a_long_answer_reaches_a_slow_reader_whole,
    a_peer_that_leaves_or_resets_is_told,
    closing_abandons_a_send_under_way,
    slots_are_used_again_under_new_generations,
    too_many_connections_end_accepting_until_there_is_room,
    an_adopted_socket_is_a_connection_like_others,
    a_disarmed_connection_waits_and_goes_on,
    a_disarmed_listener_waits_and_goes_on,
    many_connections_at_once,
    parking_ends_for_a_connection_and_its_bytes,
);

/// A bench with an armed TCP listener, and where it listens.
fn bench<E: Tested>(connections_max: usize) -> (Bench<E>, SocketAddr) {
    let listener = open_tcp("127.0.0.1:0".parse().unwrap(), 1_024).unwrap();
    let address = listener.local_addr().unwrap();
    let mut bench = Bench::<E>::new(Sockets { udp: vec![], tcp: vec![listener] }, connections_max);
    bench.engine.arm_accept(FIRST);
    (bench, address)
}

impl<E: Tested> Bench<E> {
    async fn accepted(&mut self) -> ConnId {
        let accepted = |event: &Event| match event {
            Event::Accepted(FIRST, conn) => Some(*conn),
            _ => None,
        };
        self.wait(accepted).await.1
    }

    /// A client and its connection, armed.
    async fn connected(&mut self, address: SocketAddr) -> (TcpStream, ConnId) {
        let client = connect(address);
        let conn = self.accepted().await;
        self.engine.arm_receive(conn);
        (client, conn)
    }

    async fn receive_ended(&mut self, conn: ConnId) -> Ended {
        let ended = |event: &Event| match event {
            Event::ReceiveEnded(id, why) if *id == conn => Some(*why),
            _ => None,
        };
        self.wait(ended).await.1
    }

    /// Sends all of `bytes`, however the kernel cuts them.
    async fn send_whole(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let (len, mut from, mut bytes) = (bytes.len(), 0, bytes);
        while from < len {
            self.engine.send_tcp(conn, bytes, from);
            let (back, result) = self.sent(conn).await;
            from += result.unwrap();
            bytes = back;
            assert_eq!(bytes.len(), len, "the vector comes back as it was");
        }
    }

    async fn echo_once(&mut self, client: &mut TcpStream, conn: ConnId, word: &[u8]) {
        client.write_all(word).unwrap();
        let bytes = self.received(conn).await;
        assert_eq!(bytes, word);
        self.send_whole(conn, bytes).await;
        let mut answer = vec![0; word.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, word);
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Reads to the end, however it comes.
fn drain(mut client: TcpStream) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match client.read(&mut buffer) {
            Ok(0) => return total,
            Ok(len) => total += len,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return total,
            Err(e) => panic!("{e}"),
        }
    }
}

async fn a_connection_is_accepted_heard_answered_and_closed<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let (mut client, conn) = bench.connected(address).await;
    assert!((conn.slot as usize) < bench.engine.connections_max());
    for word in [&b"hello"[..], b"how", b"are you"] {
        bench.echo_once(&mut client, conn, word).await;
    }
    bench.engine.close(conn);
    bench.idle().await;
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0, "the client sees the end");
    assert!(bench.events.is_empty(), "no event follows a close: {:?}", bench.events);
    // What is gone may be named again without harm.
    bench.engine.arm_receive(conn);
    bench.engine.disarm_receive(conn);
    bench.engine.send_tcp(conn, b"too late".to_vec(), 0);
    bench.engine.close(conn);
    bench.idle().await;
    assert!(bench.events.is_empty(), "{:?}", bench.events);
    bench.done();
}

async fn bytes_sent_in_a_row_arrive_in_a_row<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let (mut client, conn) = bench.connected(address).await;
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let bytes = sent.clone();
    let writer = std::thread::spawn(move || {
        for piece in bytes.chunks(7_001) {
            client.write_all(piece).unwrap();
        }
        client
    });
    let mut got = Vec::new();
    while got.len() < sent.len() {
        got.extend(bench.received(conn).await);
    }
    assert!(got == sent);
    drop(writer.join().unwrap());
    assert_eq!(bench.receive_ended(conn).await, Ended::Closed);
    bench.engine.close(conn);
    bench.done();
}

async fn a_long_answer_reaches_a_slow_reader_whole<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let (mut client, conn) = bench.connected(address).await;
    let answer: Vec<u8> = (0..8_u32 << 20).map(|n| (n % 253) as u8).collect();
    let expected = answer.clone();
    let reader = std::thread::spawn(move || {
        let (mut got, mut buffer) = (Vec::new(), vec![0; 100_000]);
        while got.len() < expected.len() {
            let len = client.read(&mut buffer).unwrap();
            assert!(len > 0, "it ended after {} bytes", got.len());
            got.extend_from_slice(&buffer[..len]);
            std::thread::sleep(Duration::from_micros(200));
        }
        assert!(got == expected);
    });
    bench.send_whole(conn, answer).await;
    reader.join().unwrap();
    assert_eq!(bench.receive_ended(conn).await, Ended::Closed);
    bench.engine.close(conn);
    bench.done();
}

async fn a_peer_that_leaves_or_resets_is_told<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let (mut client, conn) = bench.connected(address).await;
    client.write_all(b"bye").unwrap();
    drop(client);
    assert_eq!(bench.received(conn).await, b"bye", "the last bytes come before the end");
    assert_eq!(bench.receive_ended(conn).await, Ended::Closed);
    bench.engine.close(conn);
    let (client, conn) = bench.connected(address).await;
    setsockopt(&client, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap();
    drop(client);
    assert_eq!(bench.receive_ended(conn).await, Ended::Error(libc::ECONNRESET));
    // Sending to who is gone fails and says so.
    bench.engine.send_tcp(conn, b"anyone there".to_vec(), 0);
    let (bytes, result) = bench.sent(conn).await;
    assert_eq!(bytes, b"anyone there");
    assert_eq!(result.unwrap_err().kind(), ErrorKind::BrokenPipe);
    bench.engine.close(conn);
    bench.done();
}

async fn closing_abandons_a_send_under_way<E: Tested>() {
    let (mut bench, address) = bench::<E>(1);
    let (client, conn) = bench.connected(address).await;
    // The client does not read: sooner or later a send stays under way.
    let mut bytes = vec![7; 1 << 20];
    loop {
        bench.engine.send_tcp(conn, bytes, 0);
        bench.idle().await;
        match bench.events.pop() {
            Some(Event::Sent(_, back, Ok(_))) => bytes = back,
            None => break,
            other => panic!("{other:?}"),
        }
    }
    bench.engine.close(conn);
    bench.idle().await;
    assert!(bench.events.is_empty(), "no event follows a close: {:?}", bench.events);
    assert!(drain(client) > 0);
    // The only slot is free for the next one, whose send is not mistaken for the last one's.
    let (mut client, next) = bench.connected(address).await;
    assert_ne!(next, conn);
    bench.echo_once(&mut client, next, b"fresh").await;
    bench.engine.close(next);
    bench.idle().await;
    bench.done();
}

async fn slots_are_used_again_under_new_generations<E: Tested>() {
    let (mut bench, address) = bench::<E>(2);
    let mut seen = HashSet::new();
    for round in 0..20_u8 {
        let (mut client, conn) = bench.connected(address).await;
        assert!(seen.insert(conn), "{conn:?} came twice");
        // Bytes on their way when the connection is closed are no one's.
        client.write_all(&[round; 100]).unwrap();
        if round % 2 == 0 {
            assert_eq!(bench.received(conn).await, [round; 100]);
        }
        bench.engine.close(conn);
        bench.idle().await;
        let late = bench.events.iter().any(|e| matches!(e, Event::Received(id, _) if *id != conn));
        assert!(!late, "{:?}", bench.events);
        bench.done();
    }
    let slots: HashSet<_> = seen.iter().map(|c| c.slot).collect();
    assert!(slots.len() <= 2);
}

async fn too_many_connections_end_accepting_until_there_is_room<E: Tested>() {
    let (mut bench, address) = bench::<E>(2);
    let (_first, first) = bench.connected(address).await;
    let (mut second, conn) = bench.connected(address).await;
    let third = connect(address);
    let ended = |event: &Event| match event {
        Event::AcceptEnded(FIRST, why) => Some(*why),
        _ => None,
    };
    assert_eq!(bench.wait(ended).await.1, Ended::Full);
    bench.idle().await;
    assert!(bench.events.is_empty(), "it is said once: {:?}", bench.events);
    let mut third = third;
    assert_eq!(third.read(&mut [0; 8]).unwrap_or(0), 0, "it is told at once");
    bench.echo_once(&mut second, conn, b"those that are there go on").await;
    bench.engine.close(first);
    bench.idle().await;
    bench.engine.arm_accept(FIRST);
    let (mut fourth, conn) = bench.connected(address).await;
    bench.echo_once(&mut fourth, conn, b"there is room").await;
    bench.done();
}

async fn an_adopted_socket_is_a_connection_like_others<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = connect(outside.local_addr().unwrap());
    let (stream, _) = outside.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let adopted = bench.engine.adopt(OwnedFd::from(stream)).unwrap();
    assert!((adopted.slot as usize) < bench.engine.connections_max());
    bench.engine.arm_receive(adopted);
    let (mut other, conn) = bench.connected(address).await;
    assert_ne!(adopted.slot, conn.slot);
    for word in [&b"one"[..], b"two"] {
        bench.echo_once(&mut client, adopted, word).await;
        bench.echo_once(&mut other, conn, word).await;
    }
    bench.send_whole(adopted, b"last words".to_vec()).await;
    bench.engine.close(adopted);
    bench.idle().await;
    assert_eq!(drain(client), b"last words".len());
    bench.engine.close(conn);
    bench.idle().await;
    bench.done();
}

async fn a_disarmed_connection_waits_and_goes_on<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    let (mut client, conn) = bench.connected(address).await;
    bench.echo_once(&mut client, conn, b"armed").await;
    bench.engine.disarm_receive(conn);
    bench.idle().await;
    bench.events.retain(|e| !matches!(e, Event::ReceiveEnded(_, Ended::Quiet)));
    client.write_all(b"wait").unwrap();
    bench.idle().await;
    assert!(bench.events.is_empty(), "nothing comes while disarmed: {:?}", bench.events);
    bench.engine.arm_receive(conn);
    assert_eq!(bench.received(conn).await, b"wait");
    // Disarmed and armed within one turn: it stays armed.
    bench.engine.disarm_receive(conn);
    bench.engine.arm_receive(conn);
    bench.echo_once(&mut client, conn, b"still").await;
    // And the other way about.
    bench.engine.disarm_receive(conn);
    bench.engine.arm_receive(conn);
    bench.engine.disarm_receive(conn);
    bench.idle().await;
    client.write_all(b"?").unwrap();
    drop(client);
    bench.idle().await;
    let heard = bench.events.iter().any(|e| matches!(e, Event::Received(..)));
    assert!(!heard, "{:?}", bench.events);
    bench.events.clear();
    bench.engine.arm_receive(conn);
    assert_eq!(bench.received(conn).await, b"?");
    assert_eq!(bench.receive_ended(conn).await, Ended::Closed);
    bench.engine.close(conn);
    // Closing right after ends what is armed by then, so that the peer sees the end.
    let (mut client, conn) = bench.connected(address).await;
    bench.engine.disarm_receive(conn);
    bench.engine.arm_receive(conn);
    bench.echo_once(&mut client, conn, b"once more").await;
    bench.engine.close(conn);
    bench.idle().await;
    assert_eq!(client.read(&mut [0; 8]).unwrap(), 0);
    assert!(bench.events.is_empty(), "no event follows a close: {:?}", bench.events);
    bench.done();
}

async fn a_disarmed_listener_waits_and_goes_on<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    bench.engine.disarm_accept(FIRST);
    bench.idle().await;
    let mut client = connect(address);
    bench.idle().await;
    let accepted = bench.events.iter().any(|e| matches!(e, Event::Accepted(..)));
    assert!(!accepted, "{:?}", bench.events);
    bench.engine.arm_accept(FIRST);
    let conn = bench.accepted().await;
    bench.engine.arm_receive(conn);
    bench.echo_once(&mut client, conn, b"at last").await;
    bench.engine.disarm_accept(FIRST);
    bench.engine.arm_accept(FIRST);
    let (mut client, conn) = bench.connected(address).await;
    bench.echo_once(&mut client, conn, b"at once").await;
    bench.done();
}

async fn many_connections_at_once<E: Tested>() {
    const COUNT: usize = 100;
    let (mut bench, address) = bench::<E>(COUNT);
    let mut pairs = Vec::new();
    for _ in 0..COUNT {
        pairs.push(bench.connected(address).await);
    }
    for round in 0..5 {
        for (n, (client, _)) in pairs.iter_mut().enumerate() {
            client.write_all(format!("{n} {round}").as_bytes()).unwrap();
        }
        for (n, (_, conn)) in pairs.iter().enumerate() {
            assert_eq!(bench.received(*conn).await, format!("{n} {round}").as_bytes());
            bench.engine.send_tcp(*conn, format!("{n} {round}").into_bytes(), 0);
        }
        for (n, (client, conn)) in pairs.iter_mut().enumerate() {
            let expected = format!("{n} {round}");
            assert_eq!(bench.sent(*conn).await.1.unwrap(), expected.len());
            let mut answer = vec![0; expected.len()];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, expected.as_bytes());
        }
    }
    for (_, conn) in &pairs {
        bench.engine.close(*conn);
    }
    bench.idle().await;
    bench.done();
}

async fn parking_ends_for_a_connection_and_its_bytes<E: Tested>() {
    let (mut bench, address) = bench::<E>(4);
    bench.idle().await;
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        let mut client = connect(address);
        std::thread::sleep(Duration::from_millis(20));
        client.write_all(b"hello").unwrap();
        client
    });
    let conn = bench.accepted().await;
    bench.engine.arm_receive(conn);
    assert_eq!(bench.received(conn).await, b"hello");
    drop(late.join().unwrap());
    assert_eq!(bench.receive_ended(conn).await, Ended::Closed);
    bench.engine.close(conn);
    bench.done();
}
