//! Notices when links, addresses or routes of the node change, and says which devices lead out of it.

use std::collections::BTreeSet;

use futures::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::{
    AddressFamily,
    route::{RouteAttribute, RouteMessage, RouteNextHop, RouteType},
};
use rtnetlink::{Handle, MulticastGroup};

use crate::RoutingError;

/// The routing table that is looked at last, and where a node's default route is.
const MAIN_TABLE: u32 = 254;

/// A connection that is told of changes.
#[derive(Clone, Debug)]
pub struct Changes {
    handle: Handle,
}

impl Changes {
    /// Opens a socket in the calling thread's namespace: a way to ask, a stream with an item for each change, and the
    /// future that drives both.
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn open()
    -> Result<(Self, impl Stream<Item = ()> + Unpin + Send, impl Future<Output = ()> + Send), RoutingError>
    {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(RoutingError::Socket)?;
        Ok((Changes { handle }, messages.map(drop), connection))
    }

    /// Indexes of the devices that default routes of the main table lead to, those of several next hops included.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn default_devices(&self) -> Result<BTreeSet<u32>, RoutingError> {
        let mut devices = BTreeSet::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut filter = RouteMessage::default();
            filter.header.address_family = family;
            let routes: Vec<RouteMessage> = self
                .handle
                .route()
                .get(filter)
                .execute()
                .try_collect()
                .await
                .map_err(|source| RoutingError::Netlink { action: "list routes".into(), source })?;
            devices.extend(routes.iter().filter(|route| is_default(route)).flat_map(devices_of));
        }
        Ok(devices)
    }
}

fn is_default(route: &RouteMessage) -> bool {
    let header = &route.header;
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    header.destination_prefix_length == 0
        && header.kind == RouteType::Unicast
        && table.unwrap_or(header.table.into()) == MAIN_TABLE
}

fn devices_of(route: &RouteMessage) -> Vec<u32> {
    let each = route.attributes.iter().flat_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => vec![*index],
        RouteAttribute::MultiPath(hops) => {
            hops.iter().map(|hop: &RouteNextHop| hop.interface_index).collect()
        }
        _ => Vec::new(),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_those_of_the_main_table_without_a_destination() {
        let mut route = RouteMessage::default();
        route.header.kind = RouteType::Unicast;
        route.header.table = 254;
        route.attributes.push(RouteAttribute::Oif(3));
        assert!(is_default(&route));
        assert_eq!(devices_of(&route), [3]);
        route.attributes.push(RouteAttribute::Table(100));
        assert!(!is_default(&route));
        let mut longer = RouteMessage::default();
        longer.header.kind = RouteType::Unicast;
        longer.header.table = 254;
        longer.header.destination_prefix_length = 24;
        assert!(!is_default(&longer));
    }
}
