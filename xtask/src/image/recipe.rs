//! What each image holds.

/// An image.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// The archive's and the repository's name.
    pub(crate) name: &'static str,
    /// Its tags.
    pub(crate) tags: &'static [&'static str],
    /// Binaries of this workspace.
    pub(crate) binaries: &'static [Binary],
    /// Whether it holds a busybox.
    pub(crate) busybox: bool,
    /// What runs.
    pub(crate) entrypoint: &'static [&'static str],
}

/// A binary and where it lies in the image.
#[derive(Debug)]
pub(crate) struct Binary {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its path in the image.
    pub(crate) path: &'static str,
}

/// Answers each request with the pod's and the node's name. As pid 1, a shell ends on SIGTERM only
/// if it says so.
const WEB: &str = r#"mkdir -p /www
echo "$(hostname) on ${NODE_NAME:-an unknown node}" > /www/index.html
trap 'kill $!; exit 0' TERM INT
echo "serving as $(hostname)"
httpd -f -v -p 80 -h /www &
wait"#;
const CLIENT: &str = r#"trap 'exit 0' TERM INT
while :; do sleep 3600 & wait $!; done"#;

/// Asks and answers beside the busybox.
const DEMO: &[Binary] = &[Binary { name: "skep-demo", path: "/usr/bin/skep-demo" }];

/// All images. demo-web has a second tag for trying a rollout.
pub(crate) const RECIPES: [Recipe; 6] = [
    Recipe {
        name: "pause",
        tags: &["dev"],
        binaries: &[Binary { name: "skep-pause", path: "/pause" }],
        busybox: false,
        entrypoint: &["/pause"],
    },
    Recipe {
        name: "agent",
        tags: &["dev"],
        binaries: &[
            Binary { name: "skep-agent", path: "/usr/bin/skep-agent" },
            Binary { name: "skep-cni", path: "/usr/bin/skep-cni" },
        ],
        busybox: false,
        entrypoint: &["/usr/bin/skep-agent"],
    },
    Recipe {
        name: "proxy",
        tags: &["dev"],
        binaries: &[Binary { name: "skep-proxy", path: "/usr/bin/skep-proxy" }],
        busybox: false,
        entrypoint: &["/usr/bin/skep-proxy"],
    },
    Recipe {
        name: "operator",
        tags: &["dev"],
        binaries: &[Binary { name: "skep-operator", path: "/usr/bin/skep-operator" }],
        busybox: false,
        entrypoint: &["/usr/bin/skep-operator"],
    },
    Recipe {
        name: "demo-web",
        tags: &["dev", "next"],
        binaries: DEMO,
        busybox: true,
        entrypoint: &["/bin/sh", "-c", WEB],
    },
    Recipe {
        name: "demo-client",
        tags: &["dev"],
        binaries: DEMO,
        busybox: true,
        entrypoint: &["/bin/sh", "-c", CLIENT],
    },
];
