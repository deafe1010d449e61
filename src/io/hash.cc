#include "io/hash.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <openssl/evp.h>
#include <sys/stat.h>
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

// A file, open for reading.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& path)
      : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (fd_ < 0) fail_resource("{}: cannot open: {}", path.string(), std::strerror(errno));
  }
  ~Reader() { ::close(fd_); }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  int64_t size() const {
    struct stat status = {};
    if (::fstat(fd_, &status) != 0)
      fail_resource("{}: cannot read: {}", path_.string(), std::strerror(errno));
    return status.st_size;
  }

  // The next `size` bytes.
  void add_to(Digest& digest, int64_t size, const std::function<void(int64_t bytes)>& read) {
    std::vector<char> piece(size_t{1} << 20);
    for (int64_t left = size; left > 0;) {
      const ssize_t n =
          ::read(fd_, piece.data(), std::min(piece.size(), static_cast<size_t>(left)));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0)
        fail_resource("{}: cannot read: {}", path_.string(),
                      n < 0 ? std::strerror(errno) : "it ends too early");
      digest.add(piece.data(), static_cast<size_t>(n));
      left -= n;
      if (read) read(n);
    }
  }

 private:
  const std::filesystem::path& path_;
  int fd_;
};

}  // namespace

std::string sha256(std::span<const std::byte> bytes) {
  Digest digest(EVP_sha256());
  digest.add(bytes.data(), bytes.size());
  return digest.hex();
}

std::string sha256_of_file(const std::filesystem::path& path,
                           const std::function<void(int64_t bytes)>& read) {
  Reader file(path);
  Digest digest(EVP_sha256());
  file.add_to(digest, file.size(), read);
  return digest.hex();
}

std::string blob_hash(const std::filesystem::path& path, int64_t size, std::string_view like,
                      const std::function<void(int64_t bytes)>& read) {
  LAPIDARY_CHECK(is_blob_name(like), "asked for a hash of unknown kind");
  Reader file(path);
  Digest digest(like.size() == 40 ? EVP_sha1() : EVP_sha256());
  if (like.size() == 40) {
    const std::string head = fmt::format("blob {}", size);
    digest.add(head.c_str(), head.size() + 1);  // with its zero
  }
  file.add_to(digest, size, read);
  return digest.hex();
}

}  // namespace lapidary
