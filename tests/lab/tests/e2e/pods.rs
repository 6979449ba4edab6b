//! Pods from the inside: exec, cp, logs, port-forward, configuration, restarts.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use skep_test_lab::cluster::Cluster;
use skep_test_lab::command::eventually;

pub(crate) fn exec_hands_on_input_output_and_exit_code(cluster: &Cluster) -> Result<()> {
    let said = cluster.kubectl_words(&["exec", "-i", "deploy/client", "--", "cat"], b"one\ntwo\n")?.ok()?;
    ensure!(said == "one\ntwo\n", "cat gave back {said:?}");
    let said =
        cluster.kubectl_words(&["exec", "deploy/client", "--", "sh", "-c", "echo wrong >&2; exit 7"], b"")?;
    ensure!(said.code == 7 && said.err.contains("wrong"), "{said:?}");
    Ok(())
}

pub(crate) fn cp_copies_into_a_pod_and_back(cluster: &Cluster) -> Result<()> {
    let (pod, _) = cluster.ready_pods("app=client")?.pop().context("no client pod")?;
    let folder = cluster.dir().to_string_lossy().into_owned();
    let (there, back) = (format!("{folder}/there"), format!("{folder}/back"));
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(&there, &content)?;
    cluster.kubectl(&format!("cp {there} {pod}:/tmp/file"))?;
    cluster.kubectl(&format!("cp {pod}:/tmp/file {back}"))?;
    ensure!(std::fs::read(&back)? == content, "the copy differs");
    [there, back].iter().try_for_each(std::fs::remove_file)?;
    Ok(())
}

pub(crate) fn logs_show_and_follow_what_a_container_writes(cluster: &Cluster) -> Result<()> {
    let text = cluster.kubectl("logs deploy/web")?;
    ensure!(text.contains("serving as web-"), "{text}");
    let script = "i=0; while [ $i -lt 50 ]; do echo line $i; i=$((i+1)); sleep 0.1; done";
    let image = "--image=skep.local/demo-client:dev";
    cluster
        .kubectl_words(
            &["run", "talker", image, "--restart=Never", "--command", "--", "sh", "-c", script],
            b"",
        )?
        .ok()?;
    cluster.kubectl("wait --for=condition=Ready pod/talker --timeout=30s")?;
    let followed = cluster.kubectl("logs -f talker")?;
    ensure!(followed.lines().count() == 50 && followed.ends_with("line 49\n"), "{followed}");
    ensure!(cluster.kubectl("logs talker --tail=2")? == "line 48\nline 49\n");
    cluster.kubectl("delete pod talker").map(drop)
}

pub(crate) fn port_forward_reaches_a_service(cluster: &Cluster) -> Result<()> {
    let mut forward = cluster
        .kubectl_command(&["port-forward", "svc/web", "18080:80"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // Held to the end: kubectl writes a line for each connection.
    let mut output = BufReader::new(forward.stdout.take().context("no output")?);
    let mut first = String::new();
    output.read_line(&mut first)?;
    let answers: Result<Vec<String>> = (0..3).map(|_| get("127.0.0.1:18080")).collect();
    forward.kill()?;
    forward.wait()?;
    for answer in answers? {
        ensure!(answer.contains("200 OK") && answer.contains("web-"), "{answer}");
    }
    Ok(())
}

fn get(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn describe_and_events_tell_a_pods_story(cluster: &Cluster) -> Result<()> {
    let described = cluster.kubectl("describe pod -l app=web")?;
    for word in ["Node:", "IP:", "Conditions:", "Ready", "Scheduled", "Pulled", "Started"] {
        ensure!(described.contains(word), "no {word} in:\n{described}");
    }
    let events = cluster.kubectl("get events -A")?;
    ensure!(events.contains("Scheduled") && events.contains("ScalingReplicaSet"), "{events}");
    Ok(())
}

const CONFIGURED: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue, file.txt: "from a file"}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: open}
---
apiVersion: v1
kind: Pod
metadata: {name: configured, labels: {app: configured}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  initContainers:
  - name: first
    image: skep.local/demo-client:dev
    command: [sh, -c, "echo prepared > /work/file"]
    volumeMounts: [{name: work, mountPath: /work}]
  containers:
  - name: main
    image: skep.local/demo-client:dev
    command: [sh, -c, "echo $COLOR $WORD $NAME; cat /config/file.txt; echo; cat /work/file; ls /var/run/secrets/kubernetes.io/serviceaccount; cat /labels"]
    env:
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    volumeMounts:
    - {name: work, mountPath: /work}
    - {name: config, mountPath: /config}
    - {name: self, mountPath: /labels, subPath: labels}
  volumes:
  - {name: work, emptyDir: {}}
  - {name: config, configMap: {name: settings}}
  - {name: self, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;

pub(crate) fn a_pod_sees_its_configuration(cluster: &Cluster) -> Result<()> {
    cluster.apply(CONFIGURED)?;
    eventually(Duration::from_secs(60), || {
        let phase = cluster.kubectl("get pod configured -o jsonpath={.status.phase}")?;
        ensure!(phase == "Succeeded", "{phase}");
        Ok(())
    })?;
    let text = cluster.kubectl("logs configured")?;
    for word in ["blue open configured", "from a file", "prepared", "token", "ca.crt", "app=\"configured\""] {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    cluster.kubectl("delete pod/configured configmap/settings secret/hidden").map(drop)
}

pub(crate) fn a_failing_container_is_restarted_and_counted(cluster: &Cluster) -> Result<()> {
    let image = "--image=skep.local/demo-client:dev";
    cluster.kubectl_words(&["run", "failing", image, "--command", "--", "sh", "-c", "exit 3"], b"")?.ok()?;
    eventually(Duration::from_secs(60), || {
        let status = &cluster.json("get pod failing")?["status"]["containerStatuses"][0];
        ensure!(status["restartCount"].as_u64() > Some(0), "{status}");
        ensure!(status["lastState"]["terminated"]["exitCode"] == 3, "{status}");
        Ok(())
    })?;
    cluster.kubectl("delete pod failing").map(drop)
}
