package bundle

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/selvage-edge/selvage/control/identity"
	"github.com/selvage-edge/selvage/runtime/function"
)

func TestVerify(t *testing.T) {
	c, created, err := identity.Init(filepath.Join(t.TempDir(), "id"), identity.InitOptions{Project: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.LoadSigner(created.PublisherKey)
	if err != nil {
		t.Fatal(err)
	}
	digest, other := function.DigestOf([]byte("a")), function.DigestOf([]byte("b"))
	sign := func(k *identity.Signer, project string) identity.Envelope {
		e, err := Sign(k, project, "cart", digest)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	good := sign(key, "shop")
	if id, err := Verify(c.Anchor, good, "shop", "cart", digest); err != nil || id != key.ID() {
		t.Errorf("good signature: %v, %v", id, err)
	}
	for name, c2 := range map[string]struct {
		e             identity.Envelope
		project, name string
		digest        function.Digest
	}{
		"another bundle":                     {good, "shop", "cart", other},
		"another function":                   {good, "shop", "pay", digest},
		"another project":                    {good, "bank", "cart", digest},
		"shop's key signs for bank":          {sign(key, "bank"), "bank", "cart", digest},
		"shop's key, said to be for bank":    {sign(key, "bank"), "shop", "cart", digest},
		"the catalog's key signs a bundle":   {sign(c.Catalog, "shop"), "shop", "cart", digest},
		"not JSON":                           {key.Sign(PayloadType, []byte("hello")), "shop", "cart", digest},
		"another type":                       {key.Sign("text/plain", good.Payload), "shop", "cart", digest},
		"JSON with a second spelling":        {key.Sign(PayloadType, append([]byte(" "), good.Payload...)), "shop", "cart", digest},
		"JSON that says more than it should": {key.Sign(PayloadType, []byte(`{"project":"shop","function":"cart","digest":"`+string(digest)+`","x":1}`)), "shop", "cart", digest},
	} {
		if _, err := Verify(c.Anchor, c2.e, c2.project, c2.name, c2.digest); !errors.Is(err, identity.ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
