//! The control plane as a process: started, killed, stopped, and told wrong things.

#[cfg(test)]
mod process {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Output, Stdio};
    use std::time::{Duration, Instant};

    use futures::TryStreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{ObjectMeta, PostParams, WatchEvent, WatchParams};
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::{Api, Client, Config};

    const DEADLINE: Duration = Duration::from_secs(60);

    fn free() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// A control plane on addresses of its own.
    struct ControlPlane {
        data: tempfile::TempDir,
        bind: SocketAddr,
        admin: SocketAddr,
        child: Option<Child>,
    }

    impl ControlPlane {
        fn new() -> Self {
            Self { data: tempfile::tempdir().unwrap(), bind: free(), admin: free(), child: None }
        }

        fn command(&self) -> Command {
            self.command_at(self.bind, self.admin)
        }

        fn command_at(&self, bind: SocketAddr, admin: SocketAddr) -> Command {
            let mut command = Command::new(env!("CARGO_BIN_EXE_skep-controlplane"));
            command
                .arg("--data-dir")
                .arg(self.data.path())
                .args(["--bind", &bind.to_string(), "--admin", &admin.to_string()])
                .args(["--advertise-address", "127.0.0.1"]);
            command
        }

        fn start(&mut self, stdin: Stdio) {
            let child = self.command().stdin(stdin).stderr(Stdio::null()).spawn().unwrap();
            self.child = Some(child);
            wait_for("the kubeconfig for nodes", || self.data.path().join("bootstrap.kubeconfig").exists());
            wait_for("readiness", || ready(self.admin));
        }

        fn kill(&mut self) {
            let mut child = self.child.take().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
        }

        /// Asks it to stop and returns how long that took.
        fn stop(&mut self) -> Duration {
            let mut child = self.child.take().unwrap();
            let began = Instant::now();
            let pid = child.id().to_string();
            assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
            wait_for("the end of the process", || child.try_wait().unwrap().is_some());
            assert!(child.wait().unwrap().success());
            began.elapsed()
        }

        async fn client(&self) -> Client {
            // A second call finds it installed.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
            let kubeconfig = Kubeconfig::read_from(self.data.path().join("admin.kubeconfig")).unwrap();
            let options = KubeConfigOptions::default();
            Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap()).unwrap()
        }
    }

    impl Drop for ControlPlane {
        fn drop(&mut self) {
            if let Some(mut child) = self.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }

    fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < end, "waited too long for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ready(admin: SocketAddr) -> bool {
        use std::io::{Read, Write};
        let Ok(mut stream) = TcpStream::connect(admin) else { return false };
        let request = "GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    fn config_map(name: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            ..ConfigMap::default()
        }
    }

    async fn create(maps: &Api<ConfigMap>, name: &str) -> String {
        let made = maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
        made.metadata.resource_version.unwrap()
    }

    #[tokio::test]
    async fn a_killed_control_plane_comes_back_with_everything_and_resumes_watches() {
        let mut plane = ControlPlane::new();
        plane.start(Stdio::null());
        let before = std::fs::read(plane.data.path().join("bootstrap.kubeconfig")).unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(plane.client().await, "default");
        let first = create(&maps, "first").await;
        create(&maps, "second").await;
        plane.kill();
        plane.start(Stdio::null());
        let maps: Api<ConfigMap> = Api::namespaced(plane.client().await, "default");
        create(&maps, "third").await;
        let watch = maps.watch(&WatchParams::default(), &first).await.unwrap();
        let added = watch.try_filter_map(|event| async {
            Ok(match event {
                WatchEvent::Added(map) => map.metadata.name,
                _ => None,
            })
        });
        let mut added = std::pin::pin!(added);
        let mut names = Vec::new();
        while names.len() < 2 {
            let next = tokio::time::timeout(DEADLINE, added.try_next()).await.unwrap().unwrap().unwrap();
            // The root CA is published in every namespace.
            names.extend(Some(next).filter(|name| name != "kube-root-ca.crt"));
        }
        assert_eq!(names, ["second", "third"], "exactly what came after the first");
        let after = std::fs::read(plane.data.path().join("bootstrap.kubeconfig")).unwrap();
        assert_eq!(before, after, "the token of the first start is the token of every start");
    }

    #[test]
    fn it_serves_an_inherited_socket_and_stops_when_asked() {
        let mut plane = ControlPlane::new();
        let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = inherited.local_addr().unwrap();
        let child = plane
            .command()
            .args(["--listen-fd", "0"])
            .stdin(Stdio::from(OwnedFd::from(inherited)))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        plane.child = Some(child);
        wait_for("readiness", || ready(plane.admin));
        assert!(TcpStream::connect(address).is_ok());
        assert!(TcpStream::connect(plane.bind).is_ok());
        assert!(plane.stop() < Duration::from_secs(20));
        assert!(TcpStream::connect(plane.bind).is_err());
    }

    fn fails(mut command: Command) -> String {
        let output: Output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "{command:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    #[test]
    fn wrong_settings_are_explained_with_what_to_do() {
        let plane = ControlPlane::new();
        for (arguments, advice) in [
            (&["--listen-fd", "0"][..], "not a listening TCP socket"),
            (&["--listen-fd", "77"], "the parent has not passed it"),
            (&["--store", "etcd=http://127.0.0.1:1"], "check that its endpoints are up"),
            (&["--roles", "scheduler"], "need --kubeconfig"),
        ] {
            let mut command = plane.command();
            command.args(arguments);
            let said = fails(command);
            assert!(said.contains(advice), "{arguments:?}: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }

    #[test]
    fn a_second_process_on_the_same_data_is_told_so() {
        let mut plane = ControlPlane::new();
        plane.start(Stdio::null());
        let said = fails(plane.command_at(free(), free()));
        assert!(said.contains("in use by another process"), "{said}");
    }
}
