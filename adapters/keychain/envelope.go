package keychain

import (
	"bytes"
	"encoding/json"
)

// An envelope is the form in which the keyring library, and the programs that are built on it, keep values in the Secret
// Service, KWallet and pass: a JSON object with the members of keyring.Item, all of them always.
type envelope struct {
	Key                         *string
	Data                        *[]byte
	Label                       *string
	Description                 *string
	KeychainNotTrustApplication *bool
	KeychainNotSynchronizable   *bool
}

// openEnvelope gives the key and the value that raw envelops; ok is false when raw is anything else.
func openEnvelope(raw []byte) (key string, value []byte, ok bool) {
	if t := bytes.TrimSpace(raw); len(t) == 0 || t[0] != '{' {
		return "", nil, false
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || len(members) != 6 {
		return "", nil, false
	}
	var e envelope
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if d.Decode(&e) != nil || e.Key == nil || e.Label == nil || e.Description == nil || e.KeychainNotTrustApplication == nil || e.KeychainNotSynchronizable == nil {
		return "", nil, false
	}
	if e.Data == nil { // "null", a value without bytes
		return *e.Key, []byte{}, true
	}
	return *e.Key, *e.Data, true
}

// rewrap gives an envelope that differs from raw in its value.
func rewrap(raw, value []byte) ([]byte, error) {
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, errDamaged
	}
	e.Data = &value
	return json.Marshal(e)
}

// wrap gives an envelope of value as the library would write it.
func wrap(key string, value []byte) ([]byte, error) {
	no, empty := false, ""
	return json.Marshal(envelope{&key, &value, &empty, &empty, &no, &no})
}
