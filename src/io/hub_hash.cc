#include "io/hub_hash.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <openssl/evp.h>
#include <unistd.h>
#include <vector>

#include "base/fail.h"
#include "io/hub_name.h"

namespace lapidary {

namespace {

class Digest {
 public:
  explicit Digest(const EVP_MD* kind) : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    LAPIDARY_CHECK(context_ && EVP_DigestInit_ex(context_.get(), kind, nullptr) == 1,
                   "a digest of OpenSSL cannot start");
  }
  void add(const void* bytes, size_t size) {
    LAPIDARY_CHECK(EVP_DigestUpdate(context_.get(), bytes, size) == 1, "OpenSSL cannot digest");
  }
  std::string hex() {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    LAPIDARY_CHECK(EVP_DigestFinal_ex(context_.get(), bytes, &size) == 1, "OpenSSL cannot digest");
    std::string text;
    for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
    return text;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

}  // namespace

std::string blob_hash(const std::filesystem::path& path, int64_t size, std::string_view like,
                      const std::function<void(int64_t bytes)>& read) {
  LAPIDARY_CHECK(is_blob_name(like), "asked for a hash of unknown kind");
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail_resource("{}: cannot open: {}", path.string(), std::strerror(errno));
  const std::unique_ptr<const int, void (*)(const int*)> closed(&fd,
                                                                [](const int* f) { ::close(*f); });
  Digest digest(like.size() == 40 ? EVP_sha1() : EVP_sha256());
  if (like.size() == 40) {
    const std::string head = fmt::format("blob {}", size);
    digest.add(head.c_str(), head.size() + 1);  // with its zero
  }
  std::vector<char> piece(size_t{1} << 20);
  for (int64_t left = size; left > 0;) {
    const ssize_t n = ::read(fd, piece.data(), std::min(piece.size(), static_cast<size_t>(left)));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      fail_resource("{}: cannot read: {}", path.string(),
                    n < 0 ? std::strerror(errno) : "it ends too early");
    digest.add(piece.data(), static_cast<size_t>(n));
    left -= n;
    read(n);
  }
  return digest.hex();
}

}  // namespace lapidary
