//! One decision: filter, score, pick.

use rand::Rng;

use crate::cache::Cache;
use crate::diagnosis::FitError;
use crate::framework::{Cycle, Filter, Interest, Rejection, Score};
use crate::plugins::{default_filters, default_scores};
use crate::pod_info::PodInfo;
use crate::preemption::{Room, make_room};

/// Clusters up to this size are always searched completely.
const SEARCH_ALL: usize = 1000;
/// In larger ones the search ends once this share of the nodes was found feasible, in percent (at least).
const LEAST_SHARE: usize = 5;

/// The default scheduler's plugins and working memory.
pub struct Algorithm {
    filters: Vec<Box<dyn Filter>>,
    scores: Vec<Box<dyn Score>>,
    start: usize,
    feasible: Vec<usize>,
    rejected: Vec<(usize, Rejection)>,
    totals: Vec<i64>,
    column: Vec<i64>,
}

impl Default for Algorithm {
    fn default() -> Self {
        Self::new(default_filters(), default_scores())
    }
}

impl Algorithm {
    /// An algorithm of these plugins.
    pub fn new(filters: Vec<Box<dyn Filter>>, scores: Vec<Box<dyn Score>>) -> Self {
        Self {
            filters,
            scores,
            start: 0,
            feasible: Vec::new(),
            rejected: Vec::new(),
            totals: Vec::new(),
            column: Vec::new(),
        }
    }

    /// The node for `pod`. Among equals `rng` decides.
    pub fn decide(&mut self, cache: &Cache, pod: &PodInfo, rng: &mut impl Rng) -> Result<String, FitError> {
        let mut cycle = Cycle::new(pod, cache);
        self.filter(&mut cycle);
        match self.feasible[..] {
            [] => Err(FitError::new(cache, pod, &self.rejected)),
            [only] => Ok(cache.nodes()[only].name.clone()),
            _ => {
                self.score(&mut cycle);
                Ok(cache.nodes()[self.pick(rng)].name.clone())
            }
        }
    }

    /// Room for a pod that [`decide`](Self::decide) has just found no node for, by removing pods of lower priority.
    pub fn make_room(&self, cache: &Cache, pod: &PodInfo) -> Option<Room> {
        let mut cycle = Cycle::new(pod, cache);
        let asked = asked(&self.filters, &mut cycle);
        let candidates = self.rejected.iter().filter(|(_, rejection)| rejection.is_resolvable());
        let nodes = candidates.filter_map(|(index, _)| cache.nodes().get(*index));
        make_room(pod, nodes, |node| asked.iter().all(|filter| filter.filter(&cycle, node).is_ok()))
    }

    fn filter(&mut self, cycle: &mut Cycle<'_>) {
        self.feasible.clear();
        self.rejected.clear();
        let asked = asked(&self.filters, cycle);
        let nodes = cycle.cache.nodes();
        let enough = enough(nodes.len());
        let mut looked = 0;
        while looked < nodes.len() && self.feasible.len() < enough {
            let index = (self.start + looked) % nodes.len();
            looked += 1;
            let node = &nodes[index];
            if node.node.is_none() {
                continue;
            }
            match asked.iter().try_for_each(|filter| filter.filter(cycle, node)) {
                Ok(()) => self.feasible.push(index),
                Err(rejection) => self.rejected.push((index, rejection)),
            }
        }
        if !nodes.is_empty() {
            self.start = (self.start + looked) % nodes.len();
        }
    }

    fn score(&mut self, cycle: &mut Cycle<'_>) {
        self.totals.clear();
        self.totals.resize(self.feasible.len(), 0);
        for plugin in &self.scores {
            if plugin.pre_score(cycle, &self.feasible) == Interest::Skip {
                continue;
            }
            let nodes = cycle.cache.nodes();
            self.column.clear();
            self.column.extend(self.feasible.iter().map(|index| plugin.score(cycle, &nodes[*index])));
            plugin.normalize(cycle, &mut self.column);
            for (total, score) in self.totals.iter_mut().zip(&self.column) {
                *total += score * plugin.weight();
            }
        }
    }

    /// The index of a node with the highest total, each with the same chance.
    fn pick(&self, rng: &mut impl Rng) -> usize {
        let mut best = (i64::MIN, 0);
        let mut equals = 0u32;
        for (index, total) in self.feasible.iter().zip(&self.totals) {
            if *total > best.0 {
                best = (*total, *index);
                equals = 1;
            } else if *total == best.0 {
                equals += 1;
                if rng.random_ratio(1, equals) {
                    best.1 = *index;
                }
            }
        }
        best.1
    }
}

/// The filters that have something to say about the cycle's pod.
fn asked<'f>(filters: &'f [Box<dyn Filter>], cycle: &mut Cycle<'_>) -> Vec<&'f dyn Filter> {
    let mut asked = Vec::with_capacity(filters.len());
    for filter in filters {
        if filter.pre_filter(cycle) == Interest::Ask {
            asked.push(&**filter);
        }
    }
    asked
}

/// Feasible nodes after which the search ends.
fn enough(nodes: usize) -> usize {
    if nodes <= SEARCH_ALL {
        return nodes;
    }
    let share = 50usize.saturating_sub(nodes / 125).max(LEAST_SHARE);
    (nodes * share / 100).max(100)
}

#[cfg(test)]
mod tests;
