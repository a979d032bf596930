package awssm_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/credresolve/credresolve/adapters/awssm"
	"github.com/credresolve/credresolve/backend"
	"github.com/credresolve/credresolve/conformance"
	"github.com/credresolve/credresolve/internal/conformancetest"
	"github.com/credresolve/credresolve/internal/mototest"
)

// Not parallel: the environment belongs to the whole process.
func TestConformance(t *testing.T) {
	p := mototest.New(t)
	client := direct(p)
	// input gives v as AWS takes it. The direct client is not under test, so that bytes that are not UTF-8 may be simple.
	input := func(v backend.Value) (*string, []byte) {
		b := v.Secret.Reveal()
		if v.Fields != nil {
			b, _ = backend.FieldsToJSON(v.Fields)
		}
		if strings.ToValidUTF8(string(b), "") != string(b) {
			return nil, b
		}
		return aws.String(string(b)), nil
	}
	add := func(t conformance.T, id string, v backend.Value) string {
		text, bin := input(v)
		out, err := client.PutSecretValue(t.Context(), &secretsmanager.PutSecretValueInput{SecretId: &id, SecretString: text, SecretBinary: bin})
		if err != nil {
			t.Fatalf("adding a version: %v", err)
		}
		return aws.ToString(out.VersionId)
	}
	remove := func(t conformance.T, id string) {
		_, _ = client.DeleteSecret(t.Context(), &secretsmanager.DeleteSecretInput{SecretId: &id, ForceDeleteWithoutRecovery: aws.Bool(true)})
	}
	open := func(t conformance.T, dial *conformance.Dialer, scheme string) backend.Backend {
		c := basic(p)
		c.Endpoint = scheme + dial.Through(strings.TrimPrefix(p.URL, "http://"))
		b, err := awssm.New(c, backend.Host{})
		if err != nil {
			t.Fatalf("opening: %v", err)
		}
		return b
	}
	conformancetest.Run(t, "awssm", conformance.Harness{
		Open: func(t conformance.T, dial *conformance.Dialer) backend.Backend { return open(t, dial, "http://") },
		OpenTLS: func(t conformance.T, dial *conformance.Dialer) backend.Backend {
			// The SDK reads the variable at the login, which is after this.
			bundle := filepath.Join(t.TempDir(), "ca.pem")
			if err := errors.Join(os.WriteFile(bundle, dial.RootsPEM(), 0o600), os.Setenv("AWS_CA_BUNDLE", bundle)); err != nil {
				t.Fatalf("trusting the suite's authority: %v", err)
			}
			t.Cleanup(func() { _ = os.Unsetenv("AWS_CA_BUNDLE") })
			return open(t, dial, "https://")
		},
		Put: func(t conformance.T, id string, v backend.Value) {
			remove(t, id)
			text, bin := input(v)
			if _, err := client.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: &id, SecretString: text, SecretBinary: bin}); err != nil {
				t.Fatalf("putting: %v", err)
			}
		},
		Delete: remove,
		Advance: func(t conformance.T, id string, next backend.Value) conformance.Versions {
			before, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &id})
			if err != nil {
				t.Fatalf("advancing: %v", err)
			}
			return conformance.Versions{
				Previous: aws.ToString(before.VersionId), Current: add(t, id, next), Missing: "00000000-0000-4000-8000-000000000000",
				PreviousStage: "AWSPREVIOUS", CurrentStage: "AWSCURRENT",
			}
		},
		Fault: func(t conformance.T, f conformance.Fault) func() {
			fault := map[conformance.FaultKind]mototest.Fault{
				conformance.FaultDeny:      mototest.Refuse(400, "AccessDeniedException", textCanary),
				conformance.FaultThrottle:  mototest.Refuse(400, "ThrottlingException", textCanary, "Retry-After", fmt.Sprint(int(f.RetryAfter.Seconds()))),
				conformance.FaultHang:      mototest.Hang,
				conformance.FaultDisappear: mototest.Raw(503, "text/html", textCanary),
				conformance.FaultLogout:    mototest.Refuse(403, "UnrecognizedClientException", textCanary),
			}[f.Kind]
			if f.Kind == conformance.FaultSkew {
				return p.Break(func(c mototest.Call) mototest.Fault {
					now := time.Now().Add(time.Hour).UTC()
					signed, err := time.Parse("20060102T150405Z", c.Header.Get("X-Amz-Date"))
					if err == nil && signed.Sub(now).Abs() < 5*time.Minute {
						return nil
					}
					return mototest.Refuse(400, "InvalidSignatureException", textCanary, "Date", now.Format(http.TimeFormat))
				})
			}
			if fault == nil {
				return nil
			}
			return p.Break(func(c mototest.Call) mototest.Fault {
				if f.ID != "" && !strings.Contains(c.Body, fmt.Sprintf("%q", f.ID)) {
					return nil
				}
				return fault
			})
		},
		Reads: func(conformance.T) int {
			return len(p.Calls("GetSecretValue")) + len(p.Calls("BatchGetSecretValue"))
		},
		ID:         func(name string) string { return "conformance/" + name },
		InvalidIDs: []string{"a name", "ü", "arn:aws:s3:::bucket", strings.Repeat("a", 513)},
		Secrets:    [][]byte{[]byte(keyCanary), []byte(textCanary)},
		Limits:     conformance.Limits{MaxValue: 65536, NoEmpty: true, Page: 20},
		CaseTime:   time.Minute,
	})
}
