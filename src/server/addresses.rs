//! What the clients of one address may take together: a share of the connections and of the memory
//! for large messages, so that one address cannot leave nothing to the others.
//!
//! An IPv6 host can use any address of its network, so all addresses of a /64 count as one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::ServerConfig;
use crate::error::KvError;

/// The bits of an IPv6 address that tell the network.
const NETWORK: u128 = !(u64::MAX as u128);

/// The connections of a server, by the addresses of their clients.
#[derive(Debug)]
pub(super) struct Addresses {
    /// A permit for each connection that may still be opened.
    free: Arc<Semaphore>,
    max_connections: usize,
    /// The most connections of one address.
    share: usize,
    used: Arc<Mutex<Used>>,
}

/// The addresses that have connections.
type Used = HashMap<IpAddr, Address>;

#[derive(Debug, Default)]
struct Address {
    connections: usize,
    memory: Arc<AddressMemory>,
}

/// The memory for large messages that one address holds, in bytes.
#[derive(Debug, Default)]
pub(super) struct AddressMemory {
    pub(super) requests: AtomicUsize,
    pub(super) answers: AtomicUsize,
}

/// The right to a connection, held until this is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    used: Arc<Mutex<Used>>,
    address: IpAddr,
    memory: Arc<AddressMemory>,
    _permit: OwnedSemaphorePermit,
}

impl Addresses {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let max_connections = config.max_connections.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(max_connections)),
            max_connections,
            share: share(max_connections, config.connection_share),
            used: Arc::default(),
        }
    }

    /// Takes a connection in.
    ///
    /// # Errors
    ///
    /// [`KvError::TooManyConnections`] or [`KvError::TooManyFromAddress`] if there are too many.
    pub(super) fn admit(&self, peer: SocketAddr) -> Result<Slot, KvError> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        let permit = permit.map_err(|_| KvError::TooManyConnections {
            limit: self.max_connections,
        })?;
        let address = network(peer.ip());
        let mut used = lock(&self.used);
        let entry = used.entry(address).or_default();
        if entry.connections >= self.share {
            return Err(KvError::TooManyFromAddress { limit: self.share });
        }
        entry.connections += 1;
        Ok(Slot {
            used: Arc::clone(&self.used),
            address,
            memory: Arc::clone(&entry.memory),
            _permit: permit,
        })
    }
}

impl Slot {
    /// The memory of all connections of the same address.
    pub(super) fn memory(&self) -> &Arc<AddressMemory> {
        &self.memory
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Entry::Occupied(mut entry) = lock(&self.used).entry(self.address) {
            entry.get_mut().connections -= 1;
            if entry.get().connections == 0 {
                entry.remove();
            }
        }
    }
}

impl AddressMemory {
    /// Holds so many bytes more in a counter, if they stay within `most`.
    pub(super) fn take(held: &AtomicUsize, bytes: usize, most: usize) -> bool {
        let within = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        held.fetch_update(Relaxed, Relaxed, within).is_ok()
    }
}

/// So many percent, rounded up.
pub(super) fn share(all: usize, percent: u32) -> usize {
    let share = (all as u128 * u128::from(percent)).div_ceil(100);
    usize::try_from(share).unwrap_or(usize::MAX)
}

/// What counts as one address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & NETWORK).into()),
    }
}

fn lock(used: &Mutex<Used>) -> MutexGuard<'_, Used> {
    // A panic under the lock leaves no invariant broken.
    used.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(max: usize, share: u32) -> Addresses {
        let config = ServerConfig::default()
            .with_max_connections(max)
            .with_connection_share(share);
        Addresses::new(&config)
    }

    fn admit(addresses: &Addresses, peer: &str) -> Result<Slot, KvError> {
        addresses.admit(SocketAddr::new(peer.parse().unwrap(), 1))
    }

    #[test]
    fn an_address_gets_its_share_and_the_others_the_rest() {
        let all = addresses(10, 50);
        let mut of_one: Vec<_> = (0..5).map(|_| admit(&all, "10.0.0.1").unwrap()).collect();
        let refused = admit(&all, "10.0.0.1").unwrap_err();
        assert!(matches!(refused, KvError::TooManyFromAddress { limit: 5 }));
        let others: Vec<_> = (0..5)
            .map(|n| admit(&all, &format!("10.0.1.{n}")).unwrap())
            .collect();
        let refused = admit(&all, "10.0.0.2").unwrap_err();
        assert!(matches!(refused, KvError::TooManyConnections { limit: 10 }));
        of_one.pop();
        assert!(admit(&all, "10.0.0.1").is_ok());
        drop((of_one, others));
        assert!(lock(&all.used).is_empty());
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_count_as_one() {
        let all = addresses(10, 10);
        let _slot = admit(&all, "2001:db8:0:1::1").unwrap();
        assert!(admit(&all, "2001:db8:0:1:ffff::2").is_err());
        let _slot = admit(&all, "2001:db8:0:2::1").unwrap();
        let _slot = admit(&all, "10.0.0.1").unwrap();
        assert!(admit(&all, "::ffff:10.0.0.1").is_err());
        assert!(admit(&all, "::ffff:10.0.0.2").is_ok());
    }

    #[test]
    fn a_share_is_rounded_up() {
        let shares = [(10_000, 90), (1, 1), (9, 90), (10, 90), (usize::MAX, 100)];
        let shares = shares.map(|(all, percent)| share(all, percent));
        assert_eq!(shares, [9000, 1, 9, 9, usize::MAX]);
    }
}
