"use client";

import { useRouter } from "next/navigation";
import { useEffect } from "react";
import { authClient } from "@/lib/auth-client";

/** Renders the page anew when somebody signs in or out, here or (as soon as this tab is looked at) in another tab. */
export function SessionWatch({ userId }: { userId: string | undefined }) {
  const router = useRouter();
  const { data: session, isPending, error } = authClient.useSession();
  const changed = !isPending && !error && session?.user.id !== userId;
  useEffect(() => {
    if (changed) router.refresh();
  }, [changed, router]);
  return null;
}
