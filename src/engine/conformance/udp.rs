//! Datagrams.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::{Bench, PATIENCE, Tested, on_every_engine, soon};
use crate::engine::{Ended, Event, Sockets, UdpIndex};
use crate::limits::UDP_PAYLOAD_MAX;
use crate::sys::net::open_udp;
use crate::time::{Clock as _, RealClock};

const FIRST: UdpIndex = UdpIndex(0);

on_every_engine!(
    every_client_gets_its_own_answers_on_both_families,
    a_burst_comes_in_batches_no_larger_than_asked_for,
    empty_and_longest_datagrams_come_and_go_whole,
    longer_datagrams_are_marked_and_do_no_harm,
    held_buffers_stop_the_flow_and_released_ones_start_it,
    answers_leave_from_the_address_that_was_asked,
    late_and_skipped_answers,
    drops_of_the_kernel_are_told,
    parking_ends_for_a_datagram_and_for_the_deadline,
    no_wake_up_is_lost_in_a_ping_pong,
    a_disarmed_socket_leaves_datagrams_to_another_engine,
);

/// A bench with UDP sockets on these addresses, armed, and where they listen.
fn bench<E: Tested>(addresses: &[&str], buffer_bytes: usize) -> (Bench<E>, Vec<SocketAddr>) {
    let open = |a: &&str| open_udp(a.parse().unwrap(), buffer_bytes).unwrap();
    let udp: Vec<_> = addresses.iter().map(open).collect();
    let bound = udp.iter().map(|s| s.local_addr().unwrap()).collect();
    let mut bench = Bench::<E>::new(Sockets { udp, tcp: vec![] }, 1);
    for index in 0..addresses.len() {
        bench.engine.arm_udp(UdpIndex(u8::try_from(index).unwrap()));
    }
    (bench, bound)
}

fn client(of: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if of.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
    socket.connect(of).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 2_048];
    let len = client.recv(&mut buffer).unwrap();
    buffer[..len].to_vec()
}

/// Harvests `count` datagrams, answers each with itself, and sends until all have gone.
async fn echo_all<E: Tested>(bench: &mut Bench<E>, count: usize) {
    for _ in 0..count {
        let datagram = bench.datagram().await;
        let socket = datagram.socket;
        bench.echo(datagram, b"");
        while bench.engine.queued(socket) > 0 {
            bench.engine.send(socket).unwrap();
        }
    }
}

async fn every_client_gets_its_own_answers_on_both_families<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0", "[::1]:0"], 1 << 20);
    let clients: Vec<_> = (0..32).map(|n| client(servers[n % 2])).collect();
    for round in 0..10 {
        for (n, client) in clients.iter().enumerate() {
            client.send(format!("{n} asks {round}").as_bytes()).unwrap();
        }
        for _ in 0..clients.len() {
            let datagram = bench.datagram().await;
            let n = clients.iter().position(|c| c.local_addr().unwrap() == bench.engine.peer(&datagram));
            let asks = format!("{} asks {round}", n.unwrap());
            assert_eq!(bench.engine.view(&datagram).0, asks.as_bytes());
            assert_eq!(usize::from(datagram.socket.0), n.unwrap() % 2);
            assert_eq!(bench.engine.local(&datagram), None, "the address is known where it is bound to one");
            bench.echo(datagram, b"answer: ");
        }
        for socket in [FIRST, UdpIndex(1)] {
            while bench.engine.queued(socket) > 0 {
                bench.engine.send(socket).unwrap();
            }
        }
        for (n, client) in clients.iter().enumerate() {
            assert_eq!(answer(client), format!("answer: {n} asks {round}").as_bytes());
        }
    }
    bench.done();
}

async fn a_burst_comes_in_batches_no_larger_than_asked_for<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0"], 1 << 20);
    let client = client(servers[0]);
    for n in 0..200_u8 {
        client.send(&[n]).unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 200 {
        let before = bench.events.len();
        bench.engine.harvest(64, &mut bench.events).unwrap();
        let events: Vec<_> = bench.events.drain(before..).collect();
        assert!(events.len() <= 64, "{} datagrams at a time", events.len());
        for event in events {
            let Event::Datagram(datagram) = event else { panic!("{event:?}") };
            seen.push(bench.engine.view(&datagram).0[0]);
            bench.echo(datagram, b"");
        }
        while bench.engine.queued(FIRST) > 0 {
            bench.engine.send(FIRST).unwrap();
        }
        bench.engine.park(soon()).await.unwrap();
    }
    assert!(seen.into_iter().eq(0..200), "in the order they were sent");
    for n in 0..200_u8 {
        assert_eq!(answer(&client), [n]);
    }
    bench.done();
}

async fn empty_and_longest_datagrams_come_and_go_whole<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0", "[::1]:0"], 1 << 20);
    for server in servers {
        let client = client(server);
        for len in [0, 0, 1, 0, UDP_PAYLOAD_MAX] {
            let request = vec![b'x'; len];
            client.send(&request).unwrap();
            let datagram = bench.datagram().await;
            assert!(!datagram.truncated);
            let socket = datagram.socket;
            bench.echo(datagram, b"");
            assert_eq!(bench.engine.send(socket).unwrap(), 1);
            assert_eq!(answer(&client), request);
        }
    }
    bench.done();
}

async fn longer_datagrams_are_marked_and_do_no_harm<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0", "0.0.0.0:0"], 1 << 20);
    let targets = [servers[0], SocketAddr::from(([127, 0, 0, 1], servers[1].port()))];
    for server in targets {
        let client = client(server);
        for len in [65_507, 9_000, 2_049] {
            let long: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            client.send(&long).unwrap();
            let datagram = bench.datagram().await;
            assert!(datagram.truncated, "{len} bytes");
            assert_eq!(bench.engine.peer(&datagram), client.local_addr().unwrap());
            let beginning = bench.engine.view(&datagram).0;
            assert!(beginning.len() > UDP_PAYLOAD_MAX && beginning.len() < len);
            assert_eq!(beginning, &long[..beginning.len()]);
            bench.engine.release(datagram.buffer);
            client.send(b"and on").unwrap();
            echo_all(&mut bench, 1).await;
            assert_eq!(answer(&client), b"and on");
        }
    }
    bench.done();
}

async fn held_buffers_stop_the_flow_and_released_ones_start_it<E: Tested>() {
    const COUNT: u32 = 1_000;
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0"], 8 << 20);
    let client = client(servers[0]);
    for n in 0..COUNT {
        client.send(&n.to_be_bytes()).unwrap();
    }
    let (mut held, mut next) = (Vec::new(), 0);
    // Twice: what was released is as good as new.
    for _ in 0..2 {
        for _ in 0..100 {
            bench.engine.harvest(1_000, &mut bench.events).unwrap();
            for event in bench.events.drain(..) {
                match event {
                    Event::Datagram(datagram) => held.push(datagram),
                    Event::UdpEnded(socket, why) => {
                        assert_eq!((socket, why), (FIRST, Ended::NoBuffers));
                        bench.engine.arm_udp(FIRST);
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert!(!held.is_empty() && held.len() < COUNT as usize, "{} buffers were lent", held.len());
        for datagram in held.drain(..) {
            assert_eq!(bench.engine.view(&datagram).0, u32::to_be_bytes(next));
            next += 1;
            bench.engine.release(datagram.buffer);
        }
    }
    while next < COUNT {
        let picked = bench.wait(|event| Some(matches!(event, Event::Datagram(_)))).await;
        match picked.0 {
            Event::Datagram(datagram) => {
                assert_eq!(bench.engine.view(&datagram).0, next.to_be_bytes());
                next += 1;
                bench.engine.release(datagram.buffer);
            }
            Event::UdpEnded(..) => bench.engine.arm_udp(FIRST),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.engine.loss(FIRST).dropped, 0);
    bench.done();
}

async fn answers_leave_from_the_address_that_was_asked<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["0.0.0.0:0", "[::]:0"], 1 << 20);
    for (asked, port) in
        [("127.0.0.2", servers[0].port()), ("127.0.0.9", servers[0].port()), ("::1", servers[1].port())]
    {
        let asked = SocketAddr::new(asked.parse().unwrap(), port);
        // Connected: it hears only that address.
        let client = client(asked);
        client.send(b"where am I").unwrap();
        let datagram = bench.datagram().await;
        assert_eq!(bench.engine.local(&datagram), Some(asked.ip()));
        let (socket, peer) = (datagram.socket, bench.engine.peer(&datagram));
        bench.echo(datagram, b"");
        assert_eq!(bench.engine.send(socket).unwrap(), 1);
        assert_eq!(answer(&client), b"where am I");
        bench.engine.send_late(socket, peer, Some(asked.ip()), b"still here").unwrap();
        assert_eq!(answer(&client), b"still here");
    }
    bench.done();
}

async fn late_and_skipped_answers<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0"], 1 << 20);
    let client = client(servers[0]);
    for request in [&b"skipped"[..], b"sent", b"late"] {
        client.send(request).unwrap();
    }
    for _ in 0..2 {
        let datagram = bench.datagram().await;
        bench.echo(datagram, b"");
    }
    let late = bench.datagram().await;
    let (peer, local) = (bench.engine.peer(&late), bench.engine.local(&late));
    bench.engine.release(late.buffer);
    assert_eq!(bench.engine.queued(FIRST), 2);
    bench.engine.skip(FIRST);
    assert_eq!(bench.engine.queued(FIRST), 1);
    assert_eq!(bench.engine.send(FIRST).unwrap(), 1);
    assert_eq!(bench.engine.queued(FIRST), 0);
    bench.engine.send_late(FIRST, peer, local, b"late").unwrap();
    assert_eq!((answer(&client), answer(&client)), (b"sent".to_vec(), b"late".to_vec()));
    bench.done();
}

async fn drops_of_the_kernel_are_told<E: Tested>() {
    let socket = open_udp("127.0.0.1:0".parse().unwrap(), 4_096).unwrap();
    let client = client(socket.local_addr().unwrap());
    // Not armed, so that nobody empties the socket.
    let mut bench = Bench::<E>::new(Sockets { udp: vec![socket], tcp: vec![] }, 1);
    assert_eq!(bench.engine.loss(FIRST).dropped, 0);
    for _ in 0..200 {
        client.send(&[0; 1_000]).unwrap();
    }
    let dropped = bench.engine.loss(FIRST).dropped;
    assert!(dropped > 0 && dropped < 200);
    bench.engine.arm_udp(FIRST);
    for _ in dropped..200 {
        let datagram = bench.datagram().await;
        bench.engine.release(datagram.buffer);
    }
    bench.done();
}

async fn parking_ends_for_a_datagram_and_for_the_deadline<E: Tested>() {
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0"], 1 << 20);
    // The deadline moves both ways while the engine parks and is never slept through.
    for deadline_ms in [15, 5, 25, 1] {
        let deadline = RealClock.now().mono.plus(Duration::from_millis(deadline_ms));
        let mut turns = 0;
        while RealClock.now().mono < deadline {
            bench.engine.harvest(64, &mut bench.events).unwrap();
            bench.engine.park(deadline).await.unwrap();
            turns += 1;
            assert!(turns < 100, "parking must wait, not spin");
        }
    }
    let client = client(servers[0]);
    let sender = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        client.send(b"wake up").unwrap();
    });
    let datagram = bench.datagram().await;
    bench.engine.release(datagram.buffer);
    sender.join().unwrap();
    bench.done();
}

async fn no_wake_up_is_lost_in_a_ping_pong<E: Tested>() {
    const ROUNDS: usize = 2_000;
    let (mut bench, servers) = bench::<E>(&["127.0.0.1:0"], 1 << 20);
    let client = client(servers[0]);
    let player = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            client.send(&round.to_be_bytes()).unwrap();
            assert_eq!(answer(&client), round.to_be_bytes());
        }
        client.set_nonblocking(true).unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    });
    echo_all(&mut bench, ROUNDS).await;
    player.join().unwrap();
    bench.done();
}

async fn a_disarmed_socket_leaves_datagrams_to_another_engine<E: Tested>() {
    let socket = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
    let client = client(socket.local_addr().unwrap());
    let shared = socket.try_clone().unwrap();
    let mut old = Bench::<E>::new(Sockets { udp: vec![socket], tcp: vec![] }, 1);
    let mut new = Bench::<E>::new(Sockets { udp: vec![shared], tcp: vec![] }, 1);
    old.engine.arm_udp(FIRST);
    client.send(b"to the old one").unwrap();
    echo_all(&mut old, 1).await;
    assert_eq!(answer(&client), b"to the old one");
    old.engine.disarm_udp(FIRST);
    old.wait(|event| matches!(event, Event::UdpEnded(FIRST, Ended::Quiet)).then_some(())).await;
    for n in 0..100_u8 {
        client.send(&[n]).unwrap();
    }
    old.idle().await;
    assert!(old.events.is_empty(), "{:?}", old.events);
    new.engine.arm_udp(FIRST);
    echo_all(&mut new, 100).await;
    for n in 0..100_u8 {
        assert_eq!(answer(&client), [n]);
    }
    new.engine.disarm_udp(FIRST);
    new.wait(|event| matches!(event, Event::UdpEnded(FIRST, Ended::Quiet)).then_some(())).await;
    old.engine.arm_udp(FIRST);
    client.send(b"and back").unwrap();
    echo_all(&mut old, 1).await;
    assert_eq!(answer(&client), b"and back");
    old.done();
    new.done();
}
