//! What only this engine can meet: rings too small for what comes, and buffers that run out.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use super::*;
use crate::engine::conformance::on_uring;
use crate::sys::net::{open_tcp, open_udp};
use crate::time::{Clock as _, RealClock};

const FIRST: UdpIndex = UdpIndex(0);

/// An engine with one armed UDP socket, and a client of it.
fn with_udp(options: UringOptions) -> (UringEngine, UdpSocket) {
    let server = open_udp("127.0.0.1:0".parse().unwrap(), 8 << 20).unwrap();
    let client = open_udp("127.0.0.1:0".parse().unwrap(), 8 << 20).unwrap();
    client.set_nonblocking(false).unwrap();
    client.connect(server.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut engine = UringEngine::new(Sockets { udp: vec![server], tcp: vec![] }, options).unwrap();
    engine.arm_udp(FIRST);
    (engine, client)
}

/// Sends `count` datagrams and has each come back. Returns how often receiving was armed again.
async fn echo_burst(engine: &mut UringEngine, client: &UdpSocket, count: u32) -> u32 {
    for n in 0..count {
        client.send(&n.to_be_bytes()).unwrap();
    }
    let (mut next, mut rearmed, mut events) = (0, 0, Vec::new());
    while next < count {
        engine.harvest(64, &mut events).unwrap();
        for event in events.drain(..) {
            match event {
                Event::Datagram(datagram) => {
                    let (request, room) = engine.view(&datagram);
                    assert_eq!(request, next.to_be_bytes());
                    room[..4].copy_from_slice(request);
                    engine.queue(datagram, 4);
                    next += 1;
                }
                Event::UdpEnded(..) => {
                    engine.arm_udp(FIRST);
                    rearmed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        while engine.queued(FIRST) > 0 {
            engine.send(FIRST).unwrap();
        }
        if next < count {
            engine.park(RealClock.now().mono.plus(Duration::from_secs(10))).await.unwrap();
        }
    }
    for n in 0..count {
        let mut answer = [0; 8];
        assert_eq!(client.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], n.to_be_bytes());
    }
    assert_eq!(engine.lent(), 0);
    rearmed
}

#[test]
fn answers_go_out_as_entries_of_the_ring_too() {
    on_uring(|| async {
        let options = UringOptions { udp_send: UdpSend::Entries, ..UringOptions::default() };
        let (mut engine, client) = with_udp(options);
        echo_burst(&mut engine, &client, 500).await;
    });
}

#[test]
fn completions_beyond_the_queue_are_not_lost() {
    on_uring(|| async {
        // Sixteen completions fit the queue, and 256 datagrams the buffers.
        for udp_send in [UdpSend::Sendmmsg, UdpSend::Entries] {
            let (mut engine, client) =
                with_udp(UringOptions { ring_entries: 4, udp_send, ..UringOptions::default() });
            echo_burst(&mut engine, &client, 500).await;
        }
    });
}

#[test]
fn few_buffers_end_receiving_again_and_again_and_nothing_is_lost() {
    on_uring(|| async {
        let (mut engine, client) = with_udp(UringOptions { recv_buffers: 8, ..UringOptions::default() });
        let rearmed = echo_burst(&mut engine, &client, 500).await;
        assert!(rearmed > 10, "receiving ended {rearmed} times");
    });
}

#[test]
fn streams_without_buffers_wait_and_go_on() {
    on_uring(|| async {
        let listener = open_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        let options = UringOptions { tcp_buffers: 4, ..UringOptions::default() };
        let mut engine = UringEngine::new(Sockets { udp: vec![], tcp: vec![listener] }, options).unwrap();
        engine.arm_accept(ListenerIndex(0));
        let mut client = TcpStream::connect(address).unwrap();
        let sent: Vec<u8> = (0..200_000_u32).map(|n| (n % 239) as u8).collect();
        let bytes = sent.clone();
        let writer = std::thread::spawn(move || {
            client.write_all(&bytes).unwrap();
            client
        });
        let (mut got, mut held, mut ended, mut events) = (Vec::new(), Vec::new(), 0, Vec::new());
        while got.len() < sent.len() {
            engine.harvest(64, &mut events).unwrap();
            for event in events.drain(..) {
                match event {
                    Event::Accepted(_, conn) => engine.arm_receive(conn),
                    Event::Received(_, buffer) => {
                        got.extend_from_slice(engine.bytes(&buffer));
                        held.push(buffer);
                    }
                    Event::ReceiveEnded(conn, Ended::NoBuffers) => {
                        ended += 1;
                        for buffer in held.drain(..) {
                            engine.release(buffer);
                        }
                        engine.arm_receive(conn);
                    }
                    other => panic!("{other:?}"),
                }
            }
            if got.len() < sent.len() {
                engine.park(RealClock.now().mono.plus(Duration::from_secs(10))).await.unwrap();
            }
        }
        assert!(got == sent && ended > 0);
        drop(writer.join().unwrap());
    });
}

#[test]
fn an_engine_can_be_dropped_with_everything_under_way() {
    on_uring(|| async {
        for _ in 0..5 {
            let (udp, listener) = (
                open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap(),
                open_tcp("127.0.0.1:0".parse().unwrap(), 16).unwrap(),
            );
            let (to, address) = (udp.local_addr().unwrap(), listener.local_addr().unwrap());
            let sockets = Sockets { udp: vec![udp], tcp: vec![listener] };
            let mut engine = UringEngine::new(sockets, UringOptions::default()).unwrap();
            engine.arm_udp(FIRST);
            engine.arm_accept(ListenerIndex(0));
            let mut client = TcpStream::connect(address).unwrap();
            UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"unheard", to).unwrap();
            let mut events = Vec::new();
            let conn = loop {
                engine.harvest(64, &mut events).unwrap();
                let accepted = events.iter().find_map(|e| match e {
                    Event::Accepted(_, conn) => Some(*conn),
                    _ => None,
                });
                if let Some(conn) = accepted {
                    break conn;
                }
                engine.park(RealClock.now().mono.plus(Duration::from_secs(10))).await.unwrap();
            };
            engine.arm_receive(conn);
            // More than the sockets hold, to a client that does not read: in the end a send stays under
            // way.
            for _ in 0..100 {
                if !engine.conns.slot(conn.slot).sending {
                    engine.send_tcp(conn, vec![1; 32 << 20], 0);
                }
                engine.harvest(64, &mut events).unwrap();
                engine.park(RealClock.now().mono.plus(Duration::from_millis(1))).await.unwrap();
            }
            assert!(engine.conns.slot(conn.slot).sending);
            drop(engine);
            client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let (mut total, mut buffer) = (0, vec![0; 1 << 16]);
            // The kernel has let go of the connection: it ends, one way or the other.
            while let Ok(len @ 1..) = client.read(&mut buffer) {
                total += len;
            }
            assert!(total > 0);
        }
    });
}

#[test]
fn too_many_connections_are_refused_with_the_numbers() {
    let options = UringOptions { connections_max: 1 << 24, ..UringOptions::default() };
    let error = UringEngine::new(Sockets::default(), options).err().unwrap().to_string();
    assert!(error.contains("a ring holds at most"), "{error}");
}
