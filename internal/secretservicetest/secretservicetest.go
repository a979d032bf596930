// Package secretservicetest gives tests a Secret Service of their own: a real GNOME Keyring on a real D-Bus, with a home
// directory that ends with the test.
package secretservicetest

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// Service is a running Secret Service whose default collection, "login", is unlocked.
type Service struct {
	// Address is that of the session bus.
	Address string

	home   string
	conn   *dbus.Conn
	daemon *process
}

const (
	name     = "org.freedesktop.secrets"
	root     = "/org/freedesktop/secrets"
	login    = dbus.ObjectPath(root + "/collection/login")
	password = "the keyring's password"
	patience = 10 * time.Second
)

// NeedBus skips t where dbus-daemon is missing.
func NeedBus(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("needs gnome-keyring and dbus: run make test")
	}
}

// StartBus starts a session bus without services, and gives its address.
func StartBus(t testing.TB) string {
	t.Helper()
	NeedBus(t)
	return startBus(t, t.TempDir())
}

func startBus(t testing.TB, home string) string {
	t.Helper()
	config := filepath.Join(home, "bus.conf")
	// Without directories of services, so that nothing is started behind the test's back.
	err := os.WriteFile(config, []byte(`<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir=`+home+`</listen><policy context="default">
<allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--print-address=1")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, cmd)
	t.Cleanup(p.stop)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal("the bus did not start: ", err)
	}
	return strings.TrimSpace(address)
}

// Start starts a Secret Service. It skips t where the programs are missing.
func Start(t testing.TB) *Service {
	t.Helper()
	for _, program := range []string{"dbus-daemon", "gnome-keyring-daemon"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip("needs gnome-keyring and dbus: run make test")
		}
	}
	// Sockets have short names, and t.TempDir has a long one.
	home, err := os.MkdirTemp("", "secrets")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	if err := os.Mkdir(filepath.Join(home, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	s := &Service{Address: startBus(t, home), home: home}
	if s.conn, err = dbus.Connect(s.Address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	t.Cleanup(func() { s.daemon.stop() })
	s.startDaemon(t)
	return s
}

func (s *Service) startDaemon(t testing.TB) {
	t.Helper()
	cmd := exec.Command("gnome-keyring-daemon", "--foreground", "--unlock", "--components=secrets")
	cmd.Env = s.Env()
	cmd.Stdin = strings.NewReader(password)
	s.daemon = start(t, cmd)
	for deadline := time.Now().Add(patience); !s.owned(t); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("gnome-keyring-daemon did not start")
		}
	}
}

func (s *Service) owned(t testing.TB) (owned bool) {
	t.Helper()
	if err := s.conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, name).Store(&owned); err != nil {
		t.Fatal(err)
	}
	return owned
}

// Env is the environment in which programs see the service.
func (s *Service) Env() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + s.home, "XDG_DATA_HOME=" + s.home, "XDG_CONFIG_HOME=" + s.home, "XDG_CACHE_HOME=" + s.home,
		"XDG_RUNTIME_DIR=" + filepath.Join(s.home, "run"), "DBUS_SESSION_BUS_ADDRESS=" + s.Address,
	}
}

// LookupEnv looks into Env.
func (s *Service) LookupEnv(name string) (string, bool) {
	for _, pair := range s.Env() {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value, true
		}
	}
	return "", false
}

// Tool runs libsecret's secret-tool and gives its output, as a user would. It skips t where that is missing.
func (s *Service) Tool(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("secret-tool"); err != nil {
		t.Skip("needs libsecret-tools: run make test")
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "secret-tool", args...)
	cmd.Env, cmd.Stdin = s.Env(), strings.NewReader(stdin)
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil && failure.Len() > 0 {
		t.Fatalf("secret-tool %s: %v: %s", args[0], err, failure.Bytes())
	}
	return string(out)
}

// Lock locks the default collection.
func (s *Service) Lock(t testing.TB) {
	t.Helper()
	var locked []dbus.ObjectPath
	var prompt dbus.ObjectPath
	call := s.conn.Object(name, root).Call("org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{login})
	if err := call.Store(&locked, &prompt); err != nil {
		t.Fatal(err)
	}
}

// Unlock unlocks the default collection.
func (s *Service) Unlock(t testing.TB) {
	t.Helper()
	var output dbus.Variant
	var session dbus.ObjectPath
	call := s.conn.Object(name, root).Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant(""))
	if err := call.Store(&output, &session); err != nil {
		t.Fatal(err)
	}
	secret := struct {
		Session           dbus.ObjectPath
		Parameters, Value []byte
		ContentType       string
	}{session, []byte{}, []byte(password), "text/plain"}
	// GNOME Keyring's own way to unlock without a prompt, which its login module uses.
	call = s.conn.Object(name, root).Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword", 0, login, secret)
	if call.Err != nil {
		t.Fatal(call.Err)
	}
	if err := s.conn.Object(name, session).Call("org.freedesktop.Secret.Session.Close", 0).Err; err != nil {
		t.Fatal(err)
	}
}

// Hang makes the service deaf until resume is called.
func (s *Service) Hang(t testing.TB) (resume func()) {
	t.Helper()
	pid := s.daemon.cmd.Process
	if err := pid.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	return func() { _ = pid.Signal(continueSignal) }
}

// Stop ends the service until resume is called.
func (s *Service) Stop(t testing.TB) (resume func()) {
	t.Helper()
	s.daemon.stop()
	for deadline := time.Now().Add(patience); s.owned(t); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("gnome-keyring-daemon did not end")
		}
	}
	return func() { s.startDaemon(t) }
}

// Sessions counts the sessions that clients have open.
func (s *Service) Sessions(t testing.TB) int {
	t.Helper()
	var document string
	err := s.conn.Object(name, root+"/session").Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&document)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(document, "<node name=")
}

// Prompts counts the prompts that the service has made and that nobody has ended.
func (s *Service) Prompts(t testing.TB) int {
	t.Helper()
	var document string
	err := s.conn.Object(name, root+"/prompt").Call("org.freedesktop.DBus.Introspectable.Introspect", 0).Store(&document)
	if err != nil { // GNOME Keyring has no such object when there is no prompt
		return 0
	}
	return strings.Count(document, "<node name=")
}

// Conn is a connection to the bus, for what Service has no method.
func (s *Service) Conn() *dbus.Conn { return s.conn }

// Restart ends the service and starts it again, with the same items and the same password.
func (s *Service) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)()
}

// process is a program that ends with the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait()
	}()
	return p
}

// stop ends the program: kindly, so that it writes what it must, and then not.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(patience, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	<-p.done
}
