//! The two seams in memory, for unit tests: hash maps for maps, a byte vector for a packet.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    vec::Vec,
};

use skep_abi::{
    Addr, AffinityKey, AffinityValue, BackendKey, BackendValue, Be16, CtKey, CtValue, DropReason, Endpoint,
    FragmentKey, FragmentValue, Mac, MaglevChunk, MaglevKey, NodeMode, Peer, PeerFlags, Plain, Scope,
    ServiceKey, ServiceValue, SockKey, SockValue, SourceKey, V4, V6,
};

use crate::{
    csum,
    env::{Balancer, Env, SockEnv},
    family::Family,
    frame::Frame,
    hooks::Action,
    packet::{ChecksumFix, Packet},
    room::Room,
};

/// Maps in memory.
pub(crate) struct FakeEnv<A> {
    pub(crate) now: u32,
    pub(crate) next_random: u32,
    pub(crate) endpoints: HashMap<A, Endpoint>,
    pub(crate) peers: Vec<(A, Peer)>,
    pub(crate) services: Vec<(ServiceKey<A>, ServiceValue)>,
    pub(crate) backends: Vec<(BackendKey, BackendValue<A>)>,
    pub(crate) flows: HashMap<CtKey<A>, CtValue<A>>,
    pub(crate) fragments: HashMap<FragmentKey<A>, FragmentValue>,
    pub(crate) sockets: Vec<(SockKey<A>, SockValue<A>)>,
    pub(crate) room_for_flows: usize,
    pub(crate) affinities: HashMap<AffinityKey, AffinityValue>,
    pub(crate) maglev: HashMap<MaglevKey, MaglevChunk>,
    pub(crate) sources: HashSet<(u32, A)>,
    pub(crate) gateway: A,
    pub(crate) nat_ports: (u16, u16),
    pub(crate) mode: NodeMode,
}

impl<A: Addr + Hash> FakeEnv<A> {
    pub(crate) fn new() -> Self {
        Self {
            now: 1000,
            next_random: 0,
            endpoints: HashMap::new(),
            peers: Vec::new(),
            services: Vec::new(),
            backends: Vec::new(),
            flows: HashMap::new(),
            fragments: HashMap::new(),
            sockets: Vec::new(),
            room_for_flows: usize::MAX,
            affinities: HashMap::new(),
            maglev: HashMap::new(),
            sources: HashSet::new(),
            gateway: A::default(),
            nat_ports: (1024, 65_535),
            mode: NodeMode::default(),
        }
    }

    pub(crate) fn add_service(&mut self, addr: A, port: u16, protocol: u8, backends: &[(A, u16)]) -> u32 {
        let value = ServiceValue { set: self.services.len() as u32 + 1, ..ServiceValue::default() };
        self.add_row((addr, port, protocol, Scope::INSIDE), value, backends)
    }

    /// A row with its set's backends; `count` is filled in.
    pub(crate) fn add_row(
        &mut self,
        (addr, port, protocol, scope): (A, u16, u8, Scope),
        value: ServiceValue,
        backends: &[(A, u16)],
    ) -> u32 {
        let value = ServiceValue { count: backends.len() as u16, ..value };
        self.services.push((ServiceKey::new(addr, Be16::new(port), protocol, scope), value));
        self.set_backends(value.set, backends);
        value.set
    }

    /// Overwrites the slots of a set, from zero.
    pub(crate) fn set_backends(&mut self, set: u32, backends: &[(A, u16)]) {
        for (slot, (addr, port)) in backends.iter().enumerate() {
            let key = BackendKey { set, slot: slot as u32 };
            self.backends.push((key, BackendValue::new(*addr, Be16::new(*port))));
        }
    }

    pub(crate) fn add_pod(&mut self, addr: A, ifindex: u32) {
        let endpoint = Endpoint { ifindex, mac: pod_mac(ifindex), host_mac: [9; 6] };
        self.endpoints.insert(addr, endpoint);
    }

    pub(crate) fn add_peer(&mut self, addr: A, flags: PeerFlags, node: V6) {
        self.peers.push((addr, Peer { node, class: 0, flags }));
    }
}

pub(crate) fn pod_mac(ifindex: u32) -> Mac {
    [2, 0, 0, 0, 0, ifindex as u8]
}

fn find<K: PartialEq, V: Copy>(rows: &[(K, V)], key: &K) -> Option<V> {
    rows.iter().rev().find(|(row, _)| row == key).map(|(_, value)| *value)
}

impl<A: Addr + Hash> Balancer<A> for FakeEnv<A> {
    fn random(&mut self) -> u32 {
        self.next_random = self.next_random.wrapping_add(0x9e37_79b9);
        self.next_random
    }

    fn tick(&mut self) -> u32 {
        self.now
    }

    fn service(&mut self, key: &ServiceKey<A>) -> Option<ServiceValue> {
        find(&self.services, key)
    }

    fn backend(&mut self, key: &BackendKey) -> Option<BackendValue<A>> {
        find(&self.backends, key)
    }

    fn affinity(&mut self, key: &AffinityKey) -> Option<AffinityValue> {
        self.affinities.get(key).copied()
    }

    fn insert_affinity(&mut self, key: &AffinityKey, value: &AffinityValue) {
        self.affinities.insert(*key, *value);
    }

    fn peer(&mut self, addr: A) -> Option<Peer> {
        find(&self.peers, &addr)
    }

    fn node_ports(&self) -> (u16, u16) {
        (30_000, 32_767)
    }
}

impl<A: Addr + Hash> Env<A> for FakeEnv<A> {
    fn maglev(&mut self, key: &MaglevKey, index: u32) -> Option<u16> {
        self.maglev.get(key).map(|chunk| chunk.slots[index as usize])
    }

    fn in_source_range(&mut self, key: &SourceKey<A>) -> bool {
        self.sources.contains(&(key.set, key.addr))
    }

    fn underlay(&mut self, addr: V6) -> Option<Peer> {
        self.peers
            .iter()
            .map(|(_, peer)| *peer)
            .find(|peer| peer.node == addr && peer.flags.any(PeerFlags::REMOTE_NODE))
    }

    fn endpoint(&mut self, addr: A) -> Option<Endpoint> {
        self.endpoints.get(&addr).copied()
    }

    fn is_service(&self, addr: A) -> bool {
        addr.words()[0].to_ne_bytes()[1] == 96
    }

    fn is_cluster(&self, addr: A) -> bool {
        addr.words()[0].to_ne_bytes()[1] == 244
    }

    fn gateway(&self) -> A {
        self.gateway
    }

    fn nat_ports(&self) -> (u16, u16) {
        self.nat_ports
    }

    fn mode(&self) -> NodeMode {
        self.mode
    }

    fn flow(&mut self, key: &CtKey<A>) -> Option<&mut CtValue<A>> {
        self.flows.get_mut(key)
    }

    fn insert_flow(&mut self, key: &CtKey<A>, value: &CtValue<A>) -> Option<()> {
        if self.flows.len() >= self.room_for_flows {
            return None;
        }
        self.flows.insert(*key, *value);
        Some(())
    }

    fn claim_flow(&mut self, key: &CtKey<A>, value: &CtValue<A>) -> Option<()> {
        if self.flows.contains_key(key) { None } else { self.insert_flow(key, value) }
    }

    fn fragment(&mut self, key: &FragmentKey<A>) -> Option<FragmentValue> {
        self.fragments.get(key).copied()
    }

    fn insert_fragment(&mut self, key: &FragmentKey<A>, value: &FragmentValue) {
        self.fragments.insert(*key, *value);
    }
}

impl<A: Addr + Hash> SockEnv<A> for FakeEnv<A> {
    fn socket(&mut self, key: &SockKey<A>) -> Option<SockValue<A>> {
        find(&self.sockets, key)
    }

    fn insert_socket(&mut self, key: &SockKey<A>, value: &SockValue<A>) -> Option<()> {
        self.sockets.push((*key, *value));
        Some(())
    }
}

/// A packet in memory; its checksums are always complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FakePacket(pub(crate) Vec<u8>);

impl Packet for FakePacket {
    fn length(&self) -> u32 {
        self.0.len() as u32
    }

    fn read<T: Plain>(&self, at: u32) -> Option<T> {
        let bytes = self.0.get(at as usize..at as usize + size_of::<T>())?;
        // SAFETY: the length was checked; any bytes are a valid T.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }

    fn write<T: Plain>(&mut self, at: u32, value: T) -> Option<()> {
        let bytes = self.0.get_mut(at as usize..at as usize + size_of::<T>())?;
        // SAFETY: the length was checked.
        unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
        Some(())
    }

    fn fix_l3(&mut self, at: u32, from: u32, to: u32) -> Option<()> {
        self.fix_l4(ChecksumFix { at, from, to, size: 4, pseudo: false, udp: false })
    }

    fn fix_l4(&mut self, fix: ChecksumFix) -> Option<()> {
        let before: Be16 = self.read(fix.at)?;
        if fix.udp && before.get() == 0 {
            return Some(());
        }
        let size = fix.size as usize;
        let (from, to) = (fix.from.to_ne_bytes(), fix.to.to_ne_bytes());
        let after = csum::update(before.get(), &from[..size], &to[..size]);
        self.write(fix.at, Be16::new(if fix.udp && after == 0 { 0xffff } else { after }))
    }
}

/// An address with a number in its last byte, and `area` where the ranges of [`FakeEnv`] look.
pub(crate) trait Numbered: Family + Hash {
    fn numbered(area: u8, number: u8) -> Self;
    fn octets(self) -> Vec<u8>;
    fn header(src: Self, dst: Self, protocol: u8, length: usize) -> Vec<u8>;
}

impl Numbered for V4 {
    fn numbered(area: u8, number: u8) -> Self {
        V4::new([10, area, 0, number])
    }

    fn octets(self) -> Vec<u8> {
        V4::octets(self).to_vec()
    }

    fn header(src: Self, dst: Self, protocol: u8, length: usize) -> Vec<u8> {
        let mut header = std::vec![0x45, 0];
        header.extend((20 + length as u16).to_be_bytes());
        header.extend([0, 7, 0, 0, 64, protocol, 0, 0]);
        header.extend(src.octets());
        header.extend(dst.octets());
        let value = csum::checksum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&value);
        header
    }
}

impl Numbered for V6 {
    fn numbered(area: u8, number: u8) -> Self {
        let mut octets = [0; 16];
        (octets[0], octets[1], octets[15]) = (0xfd, area, number);
        V6::new(octets)
    }

    fn octets(self) -> Vec<u8> {
        V6::octets(self).to_vec()
    }

    fn header(src: Self, dst: Self, protocol: u8, length: usize) -> Vec<u8> {
        let mut header = std::vec![0x60, 0, 0, 0];
        header.extend((length as u16).to_be_bytes());
        header.extend([protocol, 64]);
        header.extend(V6::octets(src));
        header.extend(V6::octets(dst));
        header
    }
}

fn pseudo_sum<A: Numbered>(src: A, dst: A, protocol: u8, l4: &[u8]) -> u64 {
    let addresses = csum::sum(&src.octets()) + csum::sum(&dst.octets());
    addresses + u64::from(protocol) + l4.len() as u64 + csum::sum(l4)
}

/// A whole packet around L4 bytes whose checksum (at `checksum_at`) is filled in.
pub(crate) fn build<A: Numbered>(
    src: A,
    dst: A,
    protocol: u8,
    mut l4: Vec<u8>,
    checksum_at: usize,
) -> FakePacket {
    let pseudo = protocol != A::ICMP || A::ICMP_PSEUDO;
    let sum = if pseudo { pseudo_sum(src, dst, protocol, &l4) } else { csum::sum(&l4) };
    let value = (!csum::fold(sum)).to_be_bytes();
    l4[checksum_at..checksum_at + 2].copy_from_slice(&value);
    let mut bytes = std::vec![0; 12];
    bytes.extend(A::ETHERTYPE.to_be_bytes());
    bytes.extend(A::header(src, dst, protocol, l4.len()));
    bytes.extend(l4);
    FakePacket(bytes)
}

/// A TCP segment.
pub(crate) fn tcp<A: Numbered>(src: (A, u16), dst: (A, u16), flags: u8) -> FakePacket {
    let mut l4 = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    l4.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0, b'h', b'i']);
    build(src.0, dst.0, 6, l4, 16)
}

/// A UDP datagram.
pub(crate) fn udp<A: Numbered>(src: (A, u16), dst: (A, u16)) -> FakePacket {
    let mut l4 = [src.1.to_be_bytes(), dst.1.to_be_bytes()].concat();
    l4.extend([0, 12, 0, 0, b'd', b'a', b't', b'a']);
    build(src.0, dst.0, 17, l4, 6)
}

/// An ICMP echo.
pub(crate) fn echo<A: Numbered>(src: A, dst: A, kind: u8, id: u16) -> FakePacket {
    let mut l4 = std::vec![kind, 0, 0, 0];
    l4.extend(id.to_be_bytes());
    l4.extend([0, 1]);
    build(src, dst, A::ICMP, l4, 2)
}

/// Where a hook sent a packet, with what goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Deliver(Endpoint),
    Tunnel(V6),
    TunnelOutside(V6),
    Pass,
    HostIngress,
    World,
    Answer,
}

impl Sent {
    pub(crate) fn from<A>(room: &Room<A>) -> Self {
        match room.action {
            Action::Deliver => Sent::Deliver(room.endpoint),
            Action::Tunnel => Sent::Tunnel(room.node),
            Action::TunnelOutside => Sent::TunnelOutside(room.node),
            Action::Pass => Sent::Pass,
            Action::HostIngress => Sent::HostIngress,
            Action::World => Sent::World,
            Action::Answer => Sent::Answer,
        }
    }
}

/// The frame of a packet.
pub(crate) fn parsed<A: Numbered>(packet: &FakePacket) -> Result<Frame<A>, DropReason> {
    let mut room = Room::new();
    A::parse(packet, &mut room.frame)?;
    Ok(room.frame)
}

/// The frame of the packet that an ICMP error quotes.
pub(crate) fn quoted<A: Numbered>(packet: &FakePacket) -> Frame<A> {
    let at = parsed::<A>(packet).unwrap().l4 + 8;
    let mut room = Room::new();
    A::parse_quoted(packet, at, &mut room.quoted).unwrap();
    room.quoted
}

/// Whether every checksum of a packet is right.
pub(crate) fn is_sound<A: Numbered>(packet: &FakePacket) -> bool {
    let frame = parsed::<A>(packet).unwrap();
    let l4 = &packet.0[frame.l4 as usize..];
    let header = &packet.0[14..frame.l4 as usize];
    let header_sound = A::CHECKSUM_AT.is_none() || csum::fold(csum::sum(header)) == 0xffff;
    let pseudo = frame.protocol != A::ICMP || A::ICMP_PSEUDO;
    let sum = if pseudo { pseudo_sum(frame.src, frame.dst, frame.protocol, l4) } else { csum::sum(l4) };
    header_sound && csum::fold(sum) == 0xffff
}
