package notify

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/credresolve/credresolve/config"
)

// The example in Python takes what is sent, and nothing else.
func TestExampleVerifies(t *testing.T) {
	t.Parallel()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3: apt-get install python3")
	}
	url, got := receiver(t)
	b := start(t, config.Events{Webhooks: []config.Webhook{{URL: url, Secret: ref("key")}}})
	b.rotate("a")
	eventually(t, "it is sent", func() bool { return len(got()) == 1 })
	one := got()[0]
	verify := func(key string, body []byte) (string, error) {
		cmd := exec.Command(python, "../../examples/webhooks/verify.py", key, one.header.Get("webhook-id"), one.header.Get("webhook-timestamp"), one.header.Get("webhook-signature"))
		cmd.Stdin = bytes.NewReader(body)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := verify(newKey(1), one.body); err != nil || out != "credential.rotated a active\n" {
		t.Errorf("%s, %v", out, err)
	}
	for what, try := range map[string]func() (string, error){
		"another key":  func() (string, error) { return verify(newKey(2), one.body) },
		"another body": func() (string, error) { return verify(newKey(1), append(one.body[:len(one.body):len(one.body)], ' ')) },
	} {
		if out, err := try(); err == nil || !strings.HasPrefix(out, "refused: no signature is right") {
			t.Errorf("%s: %s, %v", what, out, err)
		}
	}
}
