// Images: sealed memfds whose private mappings are instances' memories.
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

char *sv_image_new(uint64_t size, sv_image **out) {
	sv_image *image = calloc(1, sizeof *image);
	if (!image) return strdup("image: out of memory");
	image->refs = 1;
	image->size = size;
	image->fd = memfd_create("selvage-image", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	if (image->fd < 0 && errno == EINVAL) image->fd = memfd_create("selvage-image", MFD_CLOEXEC | MFD_ALLOW_SEALING); // before Linux 6.3
	image->nonzero = calloc(size / SV_PAGE / 64 + 1, sizeof *image->nonzero);
	atomic_fetch_add(&sv_count.images, 1);
	if (image->fd >= 0 && image->nonzero && !ftruncate(image->fd, (off_t)size)) {
		*out = image;
		return NULL;
	}
	char *failed = sv_errno("image: make the memfd");
	sv_image_free(image);
	return failed;
}

static bool put(const sv_image *image, uint64_t offset, const uint8_t *data, size_t n) {
	return !n || pwrite(image->fd, data, n, (off_t)offset) == (ssize_t)n;
}

// Zero pages stay holes: they cost nothing until someone reads them.
char *sv_image_write(sv_image *image, uint64_t offset, const uint8_t *data, size_t n) {
	if (offset > image->size || n > image->size - offset) return strdup("image: a run outside its size");
	size_t run = 0; // bytes before data that are still to be written
	while (n) {
		size_t piece = SV_PAGE - offset % SV_PAGE;
		if (piece > n) piece = n;
		if (!sv_all_zero(data, piece)) {
			image->nonzero[offset / SV_PAGE / 64] |= (uint64_t)1 << (offset / SV_PAGE % 64);
			run += piece;
		} else {
			if (!put(image, offset - run, data - run, run)) return sv_errno("image: write");
			run = 0;
		}
		offset += piece, data += piece, n -= piece;
	}
	return put(image, offset - run, data - run, run) ? NULL : sv_errno("image: write");
}

char *sv_image_seal(sv_image *image) {
	if (fcntl(image->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) return sv_errno("image: seal");
	image->sealed = true;
	if (!image->size) return NULL;
	// Private, for kernels that refuse a shared mapping of what is sealed against writing.
	void *p = mmap(NULL, image->size, PROT_READ, MAP_PRIVATE, image->fd, 0);
	if (p == MAP_FAILED) return sv_errno("image: map");
	image->bytes = p;
	return NULL;
}

void sv_image_ref(sv_image *image) { atomic_fetch_add(&image->refs, 1); }

void sv_image_free(sv_image *image) {
	if (atomic_fetch_sub(&image->refs, 1) != 1) return;
	sv_slots_drop(image);
	if (image->bytes) munmap((void *)image->bytes, image->size);
	if (image->fd >= 0) close(image->fd);
	free(image->nonzero);
	free(image);
	atomic_fetch_sub(&sv_count.images, 1);
}
