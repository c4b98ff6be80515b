package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	insideArgument = "inside-namespace"
	packageLimit   = 20 * time.Minute
	resolver       = "127.0.0.53"
	mockHost       = "host.docker.internal"
)

// runPackage runs one test binary in new network, mount and process namespaces.
// Whatever it started ends with it.
func (s session) runPackage(binary, pattern string) (map[string]outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	name := packageName(binary)
	logs := filepath.Join(s.logs, name)
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	transcript, err := os.OpenFile(filepath.Join(logs, "output.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer transcript.Close()
	// The suite keeps the certificate of its own servers under one name there.
	temporary, err := os.MkdirTemp("", "complement-"+name+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(temporary)
	child := exec.Command(self, insideArgument, binary, "-test.v=test2json", "-test.run="+pattern,
		fmt.Sprintf("-test.timeout=%s", packageLimit))
	child.Env = append(os.Environ(), "COMPLEMENT_LAUNCHER="+s.launcher, "COMPLEMENT_LOGS="+logs,
		"COMPLEMENT_BASE_IMAGE=process", "TMPDIR="+temporary, "COMPLEMENT_HOSTNAME_RUNNING_COMPLEMENT="+mockHost)
	child.SysProcAttr = isolation()
	child.Stderr = transcript
	output, err := child.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := child.Start(); err != nil {
		return nil, fmt.Errorf("cannot make namespaces (root or user namespaces are needed): %w", err)
	}
	found := parse(bufio.NewReader(io.TeeReader(output, transcript)))
	if err := child.Wait(); err != nil && len(found) == 0 {
		return nil, fmt.Errorf("no result: %w, see %s", err, transcript.Name())
	}
	return found, nil
}

// isolation asks for the namespaces, with a user namespace where one is not root.
func isolation() *syscall.SysProcAttr {
	attributes := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if os.Getuid() != 0 {
		attributes.Cloneflags |= syscall.CLONE_NEWUSER
		attributes.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attributes.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attributes
}

// inside is process 1 of the namespaces: it furnishes them, then runs the tests.
func inside(arguments []string) int {
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "complement: cannot prepare the namespace:", err)
		return 1
	}
	tests := exec.Command(arguments[0], arguments[1:]...)
	tests.Stdout, tests.Stderr = os.Stdout, os.Stderr
	tests.Dir = filepath.Dir(arguments[0])
	if err := tests.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "complement:", err)
		return 1
	}
	return 0
}

// furnish raises the loopback interface and gives the namespace a resolver. Servers bring their
// own hosts files, the tests know addresses.
func furnish() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := cover("/etc/resolv.conf", "nameserver "+resolver+"\n"); err != nil {
		return err
	}
	return denyNames()
}

func raiseLoopback() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(socket)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// cover lays a text over a file of the system, in this mount namespace only.
func cover(path, text string) error {
	file, err := os.CreateTemp("", "complement-"+filepath.Base(path))
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	if err := file.Chmod(0o644); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	return syscall.Mount(file.Name(), real, "", syscall.MS_BIND, "")
}

// denyNames answers every DNS question with "no such name".
func denyNames() error {
	server, err := net.ListenPacket("udp", resolver+":53")
	if err != nil {
		return err
	}
	go func() {
		question := make([]byte, 512)
		for {
			length, client, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			if length < 12 {
				continue
			}
			answer := append([]byte(nil), question[:length]...)
			answer[2], answer[3] = 0x81, 0x83 // a response, recursion available, NXDOMAIN
			copy(answer[6:12], make([]byte, 6))
			_, _ = server.WriteTo(answer, client)
		}
	}()
	return nil
}
