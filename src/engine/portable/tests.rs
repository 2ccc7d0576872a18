use std::net::UdpSocket;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::sys::net::open_udp;

/// Parking blocks the thread here, so its future is ready at the first look.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("the portable engine never waits for a waker"),
    }
}

#[test]
fn a_flood_on_one_socket_does_not_starve_another() {
    let open = || open_udp("127.0.0.1:0".parse().unwrap(), 1 << 20).unwrap();
    let sockets = Sockets { udp: vec![open(), open(), open()], tcp: vec![] };
    let to: Vec<_> = sockets.udp.iter().map(|socket| socket.local_addr().unwrap()).collect();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut engine = PortableEngine::new(sockets, 4).unwrap();
    (0..3).for_each(|index| engine.arm_udp(UdpIndex(index)));
    for at in [0, 0, 0, 0, 0, 0, 0, 0, 1, 2] {
        client.send_to(b"ping", to[at]).unwrap();
    }
    let mut seen = [0; 3];
    let mut events = Vec::new();
    for _ in 0..3 {
        engine.harvest(2, &mut events).unwrap();
        for event in events.drain(..) {
            let Event::Datagram(datagram) = event else { continue };
            seen[usize::from(datagram.socket.0)] += 1;
            engine.release(datagram.buffer);
        }
    }
    assert!(seen[1] == 1 && seen[2] == 1, "{seen:?}");
}

#[test]
fn a_datagram_is_harvested_answered_and_its_buffer_comes_back() {
    let socket = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    let mut engine = PortableEngine::new(Sockets { udp: vec![socket], tcp: vec![] }, 4).unwrap();
    engine.arm_udp(UdpIndex(0));
    client.send(b"ping").unwrap();
    let mut events = Vec::new();
    ready(engine.park(MonoNs::NEVER)).unwrap();
    engine.harvest(8, &mut events).unwrap();
    let Some(Event::Datagram(datagram)) = events.pop() else { panic!("no datagram") };
    let (request, room) = engine.view(&datagram);
    assert_eq!(request, b"ping");
    room[..4].copy_from_slice(b"pong");
    engine.queue(datagram, 4);
    assert_eq!(engine.lent(), 0);
    assert_eq!(engine.send(UdpIndex(0)).unwrap(), 1);
    let mut answer = [0; 8];
    assert_eq!(client.recv(&mut answer).unwrap(), 4);
}

#[test]
fn a_lone_datagram_is_found_at_once_while_its_socket_is_looked_at() {
    let socket = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    let mut engine = PortableEngine::new(Sockets { udp: vec![socket], tcp: vec![] }, 4).unwrap();
    engine.arm_udp(UdpIndex(0));
    let mut events = Vec::new();
    let mut looks_until_found = |engine: &mut PortableEngine| {
        client.send(b"ping").unwrap();
        let looks = (1..4).find(|_| {
            engine.harvest(8, &mut events).unwrap();
            !events.is_empty()
        });
        let Some(Event::Datagram(datagram)) = events.pop() else { panic!("no datagram") };
        engine.release(datagram.buffer);
        looks
    };
    looks_until_found(&mut engine);
    engine.harvest(8, &mut Vec::new()).unwrap();
    // Watched from here on, as after any parking.
    ready(engine.park(MonoNs(0))).unwrap();
    for empty in [1, LOOKS_WITHOUT_EPOLL / 2, 2 * LOOKS_WITHOUT_EPOLL] {
        for _ in 0..empty {
            engine.harvest(8, &mut Vec::new()).unwrap();
        }
        // After that epoll is asked first, and the socket the next time.
        let expected = if empty > LOOKS_WITHOUT_EPOLL { 2 } else { 1 };
        assert_eq!(looks_until_found(&mut engine), Some(expected), "after {empty} empty looks");
    }
}

#[test]
fn a_socket_that_goes_on_giving_leaves_epoll_until_the_shard_parks() {
    let socket = open_udp("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(socket.local_addr().unwrap()).unwrap();
    let mut engine = PortableEngine::new(Sockets { udp: vec![socket], tcp: vec![] }, 4).unwrap();
    engine.arm_udp(UdpIndex(0));
    let mut events = Vec::new();
    let mut watched = Vec::new();
    let mut harvest = |engine: &mut PortableEngine| {
        engine.harvest(8, &mut events).unwrap();
        for event in events.drain(..) {
            let Event::Datagram(datagram) = event else { panic!("{event:?}") };
            engine.release(datagram.buffer);
        }
    };
    let soon = || MonoNs(RealClock.now().mono.0 + 1_000_000);
    for _ in 0..2 {
        // Nothing is left when it parks, so it comes to watch and wakes by the deadline.
        harvest(&mut engine);
        ready(engine.park(soon())).unwrap();
        watched.push(engine.udp[0].watched);
        // The first harvest may be the one that epoll tells it.
        for _ in 0..=HARVESTS_WATCHED {
            client.send(b"ping").unwrap();
            harvest(&mut engine);
        }
        watched.push(engine.udp[0].watched);
    }
    assert_eq!(watched, [true, false, true, false]);
    harvest(&mut engine);
    client.send(b"ping").unwrap();
    ready(engine.park(MonoNs::NEVER)).unwrap();
    engine.disarm_udp(UdpIndex(0));
    assert!(!engine.udp[0].watched && engine.udp[0].gave == 0);
}
